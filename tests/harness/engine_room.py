"""Requests through a real engine: all are submitted before it starts the first."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contracts.http import Probes
from services.bs.engine.request import (
    Echo,
    End,
    Event,
    Failure,
    Finished,
    Piece,
    Request,
    TokenLogprob,
)
from services.bs.engine.sampling import Sampling
from services.bs.experts.prober import ProbeSeries
from tests.harness.cell import Cell

_numbers = itertools.count()
_SAMPLING = {field.name for field in dataclasses.fields(Sampling)}


class StopError(Exception):
    """The signal that ends the engine."""


@dataclass
class Answer:
    """A request, and the events that the engine delivers for it."""

    request: Request
    events: list[Event] = field(default_factory=list)

    @property
    def end(self) -> End:
        """The end; fails unless the request has ended well."""
        assert isinstance(self.events[-1], End), self.events[-1]
        return self.events[-1]

    @property
    def failure(self) -> str:
        """The failure's message; fails unless the request has failed."""
        assert isinstance(self.events[-1], Failure), self.events[-1]
        return self.events[-1].message

    def text(self, index: int = 0) -> str:
        """Return the text of a sequence."""
        return "".join(piece.text for piece in self._pieces(index))

    def tokens(self, index: int = 0) -> list[TokenLogprob]:
        """Return the tokens generated for a sequence."""
        return [token for piece in self._pieces(index) for token in piece.tokens]

    def echo(self, index: int = 0) -> list[TokenLogprob]:
        """Return the tokens of a prompt."""
        (echo,) = (e for e in self.events if isinstance(e, Echo) and e.index == index)
        return list(echo.tokens)

    def reasons(self) -> dict[int, str]:
        """Return the finish reason of each sequence."""
        return {e.index: e.finish_reason for e in self.events if isinstance(e, Finished)}

    def _pieces(self, index: int) -> list[Piece]:
        return [e for e in self.events if isinstance(e, Piece) and e.index == index]


def asking(
    prompts: list[list[int]],
    max_tokens: int = 4,
    also: Callable[[Event], None] = lambda _: None,
    **fields: Any,
) -> Answer:
    """Return a greedy request and its answer to come; `also` receives every event."""

    def deliver(event: Event) -> None:
        answer.events.append(event)
        also(event)

    sampling = Sampling(**{name: fields.pop(name) for name in _SAMPLING & fields.keys()})
    request = Request(
        f"r{next(_numbers)}",
        prompts,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=fields.pop("stop", ()),
        deliver=deliver,
        **fields,
    )
    answer = Answer(request)
    return answer


class EngineRoom:
    """An engine over a cell's devices; by default a token's text is its number and a space."""

    def __init__(
        self,
        cell: Cell,
        ends: frozenset[int] = frozenset(),
        decode: Callable[[Sequence[int]], str] = lambda ids: "".join(f"{id} " for id in ids),
        kv_bytes: int = 1 << 24,
    ) -> None:
        station = cell.station
        self.engine = station.engine(station.trunk(), decode, ends, kv_bytes)

    def serve(self, *items: Answer | ProbeSeries) -> None:
        """Serve all requests side by side until they have ended."""
        for item in items:
            self.engine.submit(item.request if isinstance(item, Answer) else item)
        with self.running():
            pass

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve submitted requests in a thread of its own, since the engine lowers its priority."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        yield
        self.engine.submit(ProbeSeries(0, 1, 0, self._stop))
        thread.join(60)
        assert not thread.is_alive(), "a request has not ended"

    def _run(self) -> None:
        with contextlib.suppress(StopError):
            self.engine.run()

    def _stop(self, _: Probes | str) -> None:
        """End the engine, unless a request still waits; it gets here only when none is running."""
        if self.engine._waiting.first() is None:
            raise StopError
        self.engine.submit(ProbeSeries(0, 1, 0, self._stop))
