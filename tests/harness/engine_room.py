"""Requests through a real engine: all of them are there before it begins with the first."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.bs.engine.engine import Engine
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
from services.bs.experts.policy_in_force import PolicyInForce
from services.bs.experts.prober import Prober, ProbeRequest, Probes
from tests.harness.cell import CPU, Cell, trunk

_numbers = itertools.count()
_SAMPLING = {field.name for field in dataclasses.fields(Sampling)}


class StopError(Exception):
    """Ends the engine."""


@dataclass
class Answer:
    """A request, and what the engine tells of it."""

    request: Request
    events: list[Event] = field(default_factory=list)

    @property
    def end(self) -> End:
        """The end that it has to have had."""
        assert isinstance(self.events[-1], End), self.events[-1]
        return self.events[-1]

    @property
    def failure(self) -> str:
        """Why it got no answer."""
        assert isinstance(self.events[-1], Failure), self.events[-1]
        return self.events[-1].message

    def text(self, index: int = 0) -> str:
        """Of one of its sequences."""
        return "".join(piece.text for piece in self._pieces(index))

    def tokens(self, index: int = 0) -> list[TokenLogprob]:
        """Those made for one of its sequences."""
        return [token for piece in self._pieces(index) for token in piece.tokens]

    def echo(self, index: int = 0) -> list[TokenLogprob]:
        """The tokens of one of its prompts."""
        (echo,) = (e for e in self.events if isinstance(e, Echo) and e.index == index)
        return list(echo.tokens)

    def reasons(self) -> dict[int, str]:
        """Why each of its sequences ended."""
        return {e.index: e.finish_reason for e in self.events if isinstance(e, Finished)}

    def _pieces(self, index: int) -> list[Piece]:
        return [e for e in self.events if isinstance(e, Piece) and e.index == index]


def asking(
    prompts: list[list[int]],
    max_tokens: int = 4,
    also: Callable[[Event], None] = lambda _: None,
    **fields: Any,
) -> Answer:
    """A greedy request, to be answered; `also` hears of every event."""

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
    """An engine over a cell's devices; a token's text is its number and a space by default."""

    def __init__(
        self,
        cell: Cell,
        ends: frozenset[int] = frozenset(),
        decode: Callable[[Sequence[int]], str] = lambda ids: "".join(f"{id} " for id in ids),
        kv_bytes: int = 1 << 24,
    ) -> None:
        self.engine = Engine(
            *(trunk(cell), cell.dispatcher, Prober(cell.dispatcher, cell.channel, curve=False)),
            cell.channel,
            PolicyInForce(cell.checkpoint.info, CPU, cell.metrics),
            decode=decode,
            end_tokens=ends,
            metrics=cell.metrics,
            context=cell.context,
            kv_bytes=kv_bytes,
        )

    def serve(self, *asked: Answer | ProbeRequest) -> None:
        """Serve all of these side by side, to their ends."""
        for one in asked:
            self.engine.submit(one.request if isinstance(one, Answer) else one)
        with self.running():
            pass

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve what is submitted, in a thread of its own, as it lowers its priority."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        yield
        self.engine.submit(ProbeRequest(0, 1, 0, self._stop))
        thread.join(60)
        assert not thread.is_alive(), "a request has not ended"

    def _run(self) -> None:
        with contextlib.suppress(StopError):
            self.engine.run()

    def _stop(self, _: Probes | str) -> None:
        """End the engine, which gets to this when nothing runs, unless something still waits."""
        if self.engine._waiting.first() is None:
            raise StopError
        self.engine.submit(ProbeRequest(0, 1, 0, self._stop))
