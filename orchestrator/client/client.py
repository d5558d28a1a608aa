"""The HTTP client of commands: read and switch the state in force, probe, and send prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
from pydantic import ValidationError

from orchestrator.client import likelihood
from orchestrator.client.backoff import Backoff
from orchestrator.client.service import TIMEOUT_S, Service, TooLargeError, bounded
from orchestrator.client.sse import AnswerError, chunks
from orchestrator.contracts.http import (
    Health,
    Interval,
    Intervals,
    Orchestrator,
    PolicyRequest,
    ProbeRequest,
    Probes,
    ProfileRequest,
    ProfileText,
    Requests,
    Status,
)
from orchestrator.contracts.openai import (
    Completion,
    CompletionRequest,
    ErrorAnswer,
    Tokenized,
    TokenizeRequest,
)
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.replay_progress import Progress
from orchestrator.contracts.timings import RequestSpans, Timings
from orchestrator.contracts.verification import Verification
from orchestrator.errors import InputError, StackError, first_fault, one_line
from orchestrator.prompts.prompt import ChoicePrompt, Prompt
from orchestrator.radio import profiles
from orchestrator.radio.profiles import Profile
from orchestrator.results.schema import Choice, Stack

# Long silences are legitimate: a slow link in the profile delays every token.
TIMEOUT = httpx.Timeout(10.0, read=300.0)
PROGRESS_TIMEOUT_S = 1.0
PROBE_TIMEOUT_S = 600.0

_UNIX_ZERO_S = time.time() - time.perf_counter()


def now_s() -> float:
    """Unix time that never steps, so that differences of it are durations."""
    return _UNIX_ZERO_S + time.perf_counter()


@dataclass
class Reply:
    """The outcome of one request; if it failed, `error` is the reason and `text` what came before.

    `retries`: number of retries after a 429; `backoff_s`: how long they delayed the request.
    """

    started_s: float
    retries: int = 0
    backoff_s: float = 0.0
    first_token_s: float | None = None
    ended_s: float = 0.0
    text: str = ""
    choices: list[Choice] = field(default_factory=list)
    timings: Timings | None = None
    routing: bytes | None = None
    trace: RequestSpans | None = None
    error: str | None = None
    error_code: str | None = None

    def add(self, chunk: Completion) -> None:
        """Add a chunk of the stream."""
        for choice in chunk.choices:
            self.text += choice.text
            # Each token has a chunk, without text too: text may have to wait for more.
            self.first_token_s = self.first_token_s or now_s()
        self.timings = chunk.timings or self.timings
        self.routing = chunk.routing or self.routing
        self.trace = chunk.trace or self.trace

    def check(self, request: CompletionRequest) -> None:
        """AnswerError unless the answer has ended with all that was requested."""
        what = "stream" if request.stream else "answer"
        if request.stream and self.first_token_s is None:
            raise AnswerError("the stream ended without a token")
        for name in ("timings", "routing", "trace"):
            if getattr(request, name) and getattr(self, name) is None:
                raise AnswerError(f"the {what} ended without {name}")


class Client:
    """A client of one base station and one orchestrator, for use from any thread.

    `timeout_s` limits answers that need not wait for other requests or devices.
    """

    def __init__(self, bs_url: str, orchestrator_url: str, timeout_s: float = TIMEOUT_S) -> None:
        # Ignore the environment's proxies: they would delay what is measured here.
        # The schedule limits the requests in flight, not the connection pool.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(timeout=TIMEOUT, limits=limits, trust_env=False)
        self._backoff = Backoff()
        self._bs = Service("base station", bs_url.rstrip("/"), self._http, timeout_s)
        self._orchestrator = Service(
            "orchestrator", orchestrator_url.rstrip("/"), self._http, timeout_s
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stack(self) -> Stack:
        """Return the stack's description; StackError if a part of it does not work."""
        return Stack(self.health(), self.orchestrator(), self.status())

    def health(self, *, unwell: bool = False) -> Health:
        """Return what the base station serves and how.

        Raises:
            StackError: it does not answer; or, unless `unwell`, its engine has stopped.
        """
        health = self._bs.get("/healthz", Health)
        if health.status != "ok" and not unwell:
            raise StackError(f"the base station: {health.status}")
        return health

    def requests(self) -> Requests:
        """Return the requests that have not ended; StackError without an answer."""
        return self._bs.get("/requests", Requests)

    def metrics(self, names: Sequence[str]) -> str:
        """Return these metrics of the base station as text; StackError without an answer."""
        return self._bs.text("/metrics", [("name[]", name) for name in names])

    def orchestrator(self) -> Orchestrator:
        """Return what the orchestrator runs; StackError if it does not answer."""
        return self._orchestrator.get("/healthz", Orchestrator)

    def status(self) -> Status:
        """Return profile, policy and links in force; StackError without an answer."""
        return self._orchestrator.get("/status", Status)

    def profile(self) -> Profile:
        """Return the profile in force; StackError if the orchestrator does not answer."""
        found = self._orchestrator.get("/profile", ProfileText)
        return profiles.parse(
            found.text, found.name, f"profile {found.name} in force", found.traces
        )

    def post_progress(self, progress: Progress) -> None:
        """Report a replay's progress to the orchestrator, whether it answers or not."""
        with suppress(StackError, InputError, RuntimeError):  # the last once this client is closed
            self._orchestrator.post("/replay", progress, None, timeout_s=PROGRESS_TIMEOUT_S)

    def use_policy(self, policy: PolicySpec) -> Status:
        """Switch to a policy; the fading goes on.

        Returns:
            What is in force from `apply_at_s` on.

        Raises:
            InputError: the orchestrator refuses it; the message is its own.
            StackError: it does not answer, or answers with an error.
        """
        request = PolicyRequest(name=policy.name, params=policy.params)
        return self._orchestrator.post("/policy", request, Status)

    def use_profile(
        self, profile: Profile, *, first_interval: int = 0, allow_degraded: bool = False
    ) -> Status:
        """Switch to a profile from one of its intervals on; as `use_policy`."""
        request = ProfileRequest(
            name=profile.name,
            text=profile.text,
            traces=dict(profile.traces),
            first_interval=first_interval,
            allow_degraded=allow_degraded,
        )
        return self._orchestrator.post("/profile", request, Status)

    def verified(self, verification: Verification) -> Status:
        """Have the orchestrator keep and export a verification of links."""
        return self._orchestrator.post("/verification", verification, Status)

    def intervals(self, since_s: float) -> list[Interval]:
        """Return what each device has applied since a Unix time; StackError without an answer."""
        return self._orchestrator.get(f"/intervals?since_s={since_s}", Intervals).root

    def probe(self, device: int, size_bytes: int, count: int) -> Probes:
        """Time messages over a device's link; StackError if the device does not answer."""
        request = ProbeRequest(device=device, size_bytes=size_bytes, count=count)
        return self._bs.post("/probe", request, Probes, timeout_s=PROBE_TIMEOUT_S)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a prompt; StackError without an answer."""
        return self._bs.post("/tokenize", TokenizeRequest(prompt=text), Tokenized).count

    def complete(
        self, prompt: Prompt, model: str, *, routing: bool = False, trace: bool = False
    ) -> Reply:
        """Send one prompt and follow its stream; errors are recorded in the reply.

        `routing` requests how experts were chosen, too; `trace` requests the trace.
        """
        request = CompletionRequest(
            model=model,
            prompt=prompt.prompt,
            max_tokens=prompt.max_tokens,
            stop=prompt.stop,
            temperature=0,
            stream=True,
            routing=True if routing else None,
            trace=True if trace else None,
        )
        with _recording_outcome(Reply(now_s())) as reply:
            with self._completions(request, reply) as response:
                for chunk in chunks(response):
                    reply.add(chunk)
            reply.check(request)
        return reply

    def choose(self, prompt: ChoicePrompt, model: str, *, trace: bool = False) -> Reply:
        """Score each of a prompt's choices, in one request; errors as in `complete`."""
        request = CompletionRequest(
            model=model,
            prompt=prompt.texts,
            max_tokens=0,
            echo=True,
            logprobs=0,
            trace=True if trace else None,
        )
        with _recording_outcome(Reply(now_s())) as reply:
            with self._completions(request, reply) as response:
                data = bounded(response, likelihood.MAX_BYTES)
            reply.choices, answer = likelihood.read(data, prompt)
            reply.timings, reply.trace = answer.timings, answer.trace
            reply.check(request)
        return reply

    @contextmanager
    def _completions(self, request: CompletionRequest, reply: Reply) -> Iterator[httpx.Response]:
        """Yield the answer to a POST as it arrives; AnswerError if it is an error.

        Retry as long as the backoff allows while the base station is full.
        """
        body = request.model_dump(exclude_none=True)
        while True:
            if self._backoff.wait() or reply.retries:
                reply.backoff_s = now_s() - reply.started_s
            with self._http.stream("POST", f"{self._bs.url}/v1/completions", json=body) as response:
                if response.is_success:
                    yield response
                    return
                response.read()
                full = response.status_code == httpx.codes.TOO_MANY_REQUESTS
                if not (full and self._backoff.again(response, now_s() - reply.started_s)):
                    with suppress(ValidationError):  # an error that another server sent
                        answer = ErrorAnswer.model_validate_json(response.content)
                        reply.error_code = answer.error.code
                    raise AnswerError(f"HTTP {response.status_code}: {one_line(response.text)}")
            reply.retries += 1


@contextmanager
def _recording_outcome(reply: Reply) -> Iterator[Reply]:
    """Record in a reply the error that ends the block, and the time."""
    try:
        yield reply
    except AnswerError as error:
        reply.error = str(error)
    except TooLargeError as error:
        reply.error = f"the answer is {error}"
    except ValidationError as error:
        reply.error = f"unexpected data in the stream: {first_fault(error)}"
    except httpx.HTTPError as error:
        reply.error = f"{type(error).__name__}: {error}"
    reply.ended_s = now_s()
