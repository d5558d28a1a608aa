"""Progress reports of a replay to the orchestrator, sent beside what it measures.

    main thread    an answer ─► tally            an answer ─► tally                   the end
    reporter         └─► POST /replay ── 1 s ──► POST /replay ── 1 s ──► …  ──► POST /replay

The measurement never waits for a report: a silent orchestrator gets the next one a second later.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event, Thread
from types import TracebackType

from orchestrator.client.client import Client
from orchestrator.contracts.replay_progress import MAX_NAME, Progress
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.results.schema import CodeResult, Request

EVERY_S = 1.0
# How long the last report may delay the end of a replay.
PARTING_S = 2.0


class Tally:
    """The outcomes of a run's requests, counted; starts with the requests recorded before.

    Attributes:
        progress: the counts so far; replaced, never changed in place.
    """

    def __init__(self, prompts: PromptSet, recorded: Iterable[Request] = ()) -> None:
        self.progress = Progress(
            prompts="".join(c if c.isprintable() else "?" for c in prompts.name[:MAX_NAME]),
            planned=len(prompts.prompts),
            done=0,
            failed=0,
            scored=0,
            score_sum=0.0,
            running=True,
        )
        for request in recorded:
            self.add(request)

    def add(self, request: Request) -> None:
        """Count a request that has ended."""
        now = self.progress
        counts = {"done": now.done + 1, "failed": now.failed + (request.error is not None)}
        self.progress = now.model_copy(update=counts)
        if request.score is not None:
            self._score(request.score)

    def add_code(self, result: CodeResult) -> None:
        """Count the score that a request gets once its program was tested."""
        self._score(result.score)

    def _score(self, score: float) -> None:
        now = self.progress
        sums = {"scored": now.scored + 1, "score_sum": now.score_sum + score}
        self.progress = now.model_copy(update=sums)


class ProgressReporter:
    """A thread that reports the tally shown last, until the end of `with`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tally: Tally | None = None
        self._something = Event()
        self._ended = Event()
        self._thread = Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> ProgressReporter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._something.set()
        self._thread.join(PARTING_S)

    def show(self, tally: Tally) -> None:
        """Report this tally from now on; immediately if it is the first."""
        self._tally = tally
        self._something.set()

    def _run(self) -> None:
        self._something.wait()
        while self._tally is not None:
            ended = self._ended.is_set()
            progress = self._tally.progress
            self._client.post_progress(progress.model_copy(update={"running": not ended}))
            if ended:
                return
            self._ended.wait(EVERY_S)
