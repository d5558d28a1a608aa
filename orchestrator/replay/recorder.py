"""The record of one run, from its first request to its summary; replays and sweeps share it.

request ─► requests.jsonl, routing/ ─► tally ─► on_request
coherence intervals ─► intervals.jsonl
outcome of a program ─► code.jsonl ─► tally
the end ─► summary.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from orchestrator.client.client import Client
from orchestrator.contracts.http import Interval
from orchestrator.errors import InputError
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay.progress_reporter import Tally
from orchestrator.results.run_folder import (
    RunFolder,
    read_code,
    read_intervals,
    read_summary,
    write_summary,
)
from orchestrator.results.schema import CodeResult, Request, Stack
from orchestrator.results.summary import Summary, summarise


class Recorder:
    """The requests of a run, in its folder and counted; starts with those recorded before.

    Attributes:
        requests: with the scores of programs that were tested.
        tally: their outcomes, counted.
    """

    def __init__(
        self,
        folder: RunFolder,
        prompts: PromptSet,
        on_request: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self.requests = list(folder.recorded)
        self.tally = Tally(prompts, folder.recorded)
        self._folder = folder
        self._on_request = on_request

    def close(self) -> None:
        """Close the folder's files."""
        self._folder.close()

    def add(self, request: Request, routing: bytes | None = None) -> None:
        """Record a request that has ended, and its routing as received."""
        self._folder.add(request, routing)
        self.requests.append(request)
        self.tally.add(request)
        self._on_request(request)

    def add_intervals(self, intervals: Sequence[Interval]) -> None:
        """Record the intervals that devices have applied, each once."""
        self._folder.add_intervals(intervals)

    def catch_up(self, client: Client) -> None:
        """Record the intervals that a stopped run could not request."""
        if self._folder.recorded:
            began_s = min(r.intended_start_s for r in self._folder.recorded)
            ended_s = max(r.intended_start_s + r.end_to_end_s for r in self._folder.recorded)
            applied = client.intervals(began_s)
            self.add_intervals([item for item in applied if item.apply_at_s <= ended_s])

    def untested(self) -> list[Request]:
        """Return the requests whose programs, if they have one, were not tested."""
        tested = read_code(self._folder.path)
        return [request for request in self.requests if request.id not in tested]

    def add_code(self, result: CodeResult) -> None:
        """Record the outcome of a request's program, which is the request's score."""
        self._folder.add_code(result)
        self.tally.add_code(result)
        self.requests = [
            request.model_copy(update={"score": result.score})
            if request.id == result.id
            else request
            for request in self.requests
        ]

    def finish(
        self, after: Stack, *, took_turns: bool = False, goodput_limit_s: float | None = None
    ) -> Summary:
        """Summarise the run, also one that was complete before; write and return the summary.

        Args:
            after: the stack's report at the run's end, or later.
            took_turns: whether the run took turns with others on the stack.
            goodput_limit_s: the time within which a request counts as good; None: no goodput.
        """
        summary = summarise(
            self._folder.run,
            self.requests,
            after,
            # Read back: a long run has too many to hold while it measures.
            intervals=read_intervals(self._folder.path),
            continuous=not took_turns and self._continuous(),
            ended_now=not took_turns and self._has_sent(),
            goodput_limit_s=goodput_limit_s,
        )
        write_summary(self._folder.path, summary)
        return summary

    def _has_sent(self) -> bool:
        return len(self.requests) > len(self._folder.recorded)

    def _continuous(self) -> bool:
        """Whether the run had no pause; a complete one keeps its previous summary's answer."""
        if self._has_sent() or not self._folder.recorded:
            return not self._folder.recorded
        with suppress(InputError):  # no summary, or one of another version
            return read_summary(self._folder.path).requests_per_s is not None
        return False
