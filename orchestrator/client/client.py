"""The HTTP client of replays: what is in force, how it is changed, and one prompt's answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.client import likelihood
from orchestrator.client.backoff import Backoff
from orchestrator.client.sse import AnswerError, chunks, one_line
from orchestrator.contracts.replay_progress import Progress
from orchestrator.errors import InputError, StackError
from orchestrator.files.json_file import first_fault
from orchestrator.prompts.prompt import ChoicePrompt, Prompt
from orchestrator.radio import profiles
from orchestrator.radio.profiles import Profile
from orchestrator.results.schema import (
    Channel,
    Choice,
    Health,
    Interval,
    Intervals,
    Orchestrator,
    Policy,
    Stack,
    Timings,
    TraceTold,
)

# Long silences are legitimate: a slow link in the profile delays every token.
TIMEOUT = httpx.Timeout(10.0, read=300.0)
CONTROL_TIMEOUT_S = 10.0
TELL_TIMEOUT_S = 1.0

_UNIX_ZERO_S = time.time() - time.perf_counter()
_Answer = TypeVar("_Answer", bound=BaseModel)


def now_s() -> float:
    """Unix time that never steps, so that differences of it are durations."""
    return _UNIX_ZERO_S + time.perf_counter()


@dataclass
class Reply:
    """How one request went; `error` says why it failed, and then `text` is what came before.

    `retries`: how often it came again after a 429; `backoff_s`: how long nothing was sent for that.
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
    trace: TraceTold | None = None
    error: str | None = None
    error_code: str | None = None


class _ProfileText(BaseModel):
    name: str
    text: str
    traces: dict[str, str]


class _Traced(BaseModel):
    trace: TraceTold


class _Refusal(BaseModel):
    detail: str


class _Tokens(BaseModel):
    count: int


class _ApiError(BaseModel):
    code: str | None = None


class _ApiAnswer(BaseModel):
    error: _ApiError


class Client:
    """Talks to one base station and one orchestrator."""

    def __init__(self, bs_url: str, orchestrator_url: str) -> None:
        # Not the environment's proxies: they would carry, and delay, what is measured here.
        # How many requests are in flight is the schedule's business, not the connection pool's.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(timeout=TIMEOUT, limits=limits, trust_env=False)
        self._backoff = Backoff()
        self._bs_url = bs_url.rstrip("/")
        self._orchestrator_url = orchestrator_url.rstrip("/")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stack(self) -> Stack:
        """What base station and orchestrator say of themselves; StackError if one does not."""
        return Stack(self.health(), self.orchestrator(), self.channel())

    def health(self) -> Health:
        """What the base station serves and how; StackError if it does not say."""
        return self._ask("base station", f"{self._bs_url}/healthz", Health)

    def orchestrator(self) -> Orchestrator:
        """What the orchestrator runs; StackError if it does not say."""
        return self._ask("orchestrator", f"{self._orchestrator_url}/healthz", Orchestrator)

    def channel(self) -> Channel:
        """Profile, policy and links in force; StackError if the orchestrator does not say."""
        return self._ask("orchestrator", f"{self._orchestrator_url}/status", Channel)

    def profile(self) -> Profile:
        """The profile in force; StackError if the orchestrator does not say."""
        url = f"{self._orchestrator_url}/profile"
        told = self._ask("orchestrator", url, _ProfileText)
        return profiles.parse(told.text, told.name, f"profile {told.name} in force", told.traces)

    def tell(self, progress: Progress) -> None:
        """Tell the orchestrator how far a replay is, whether it listens or not."""
        with suppress(httpx.HTTPError, RuntimeError):  # the latter once this client is closed
            url, body = f"{self._orchestrator_url}/replay", progress.model_dump()
            self._http.post(url, json=body, timeout=TELL_TIMEOUT_S)

    def use_policy(self, policy: Policy) -> Channel:
        """Switch to a policy; the fading goes on.

        Returns:
            The channel from `apply_at_s` on.

        Raises:
            InputError: the orchestrator refuses it, in its own words.
            StackError: it does not answer, or with an error.
        """
        url = f"{self._orchestrator_url}/policy"
        body = {"name": policy.name, "params": policy.params}
        return self._ask("orchestrator", url, Channel, body)

    def use_profile(
        self, profile: Profile, *, first_interval: int = 0, allow_degraded: bool = False
    ) -> Channel:
        """Switch to a profile from one of its intervals on; as `use_policy`."""
        body = {
            "name": profile.name,
            "text": profile.text,
            "traces": dict(profile.traces),
            "first_interval": first_interval,
            "allow_degraded": allow_degraded,
        }
        return self._ask("orchestrator", f"{self._orchestrator_url}/profile", Channel, body)

    def intervals(self, since_s: float) -> list[Interval]:
        """What each device has applied since a Unix time; StackError if nobody says."""
        url = f"{self._orchestrator_url}/intervals?since_s={since_s}"
        return self._ask("orchestrator", url, Intervals).root

    def count_tokens(self, text: str) -> int:
        """How many tokens a prompt has; StackError if the base station does not say."""
        url = f"{self._bs_url}/tokenize"
        return self._ask("base station", url, _Tokens, {"prompt": text}).count

    def complete(
        self, prompt: Prompt, model: str, *, routing: bool = False, trace: bool = False
    ) -> Reply:
        """Send one prompt and follow its stream; whatever goes wrong is in the reply.

        With `routing` the base station is asked to tell, too, how it chose experts, with `trace`
        when it did what.
        """
        wanted = {name: True for name, is_so in (("routing", routing), ("trace", trace)) if is_so}
        with _told(Reply(now_s())) as reply:
            self._stream(prompt, model, reply, wanted)
        return reply

    def choose(self, prompt: ChoicePrompt, model: str, *, trace: bool = False) -> Reply:
        """Ask how likely each of a prompt's choices is, in one request; errors as of `complete`."""
        with _told(Reply(now_s())) as reply:
            body = {
                "model": model,
                "prompt": likelihood.texts(prompt),
                "max_tokens": 0,
                "echo": True,
                "logprobs": 0,
                "timings": True,
                **({"trace": True} if trace else {}),
            }
            with self._completions(body, reply) as response:
                data = _bounded(response, likelihood.MAX_BYTES)
            reply.choices, reply.timings = likelihood.read(data, prompt)
            if trace:
                reply.trace = _Traced.model_validate_json(data).trace
        return reply

    def _stream(self, prompt: Prompt, model: str, reply: Reply, wanted: dict[str, bool]) -> None:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt.prompt,
            "max_tokens": prompt.max_tokens,
            "stop": prompt.stop,
            "temperature": 0,
            "stream": True,
            "timings": True,
            **wanted,
        }
        with self._completions(body, reply) as response:
            for chunk in chunks(response):
                for choice in chunk.choices:
                    reply.text += choice.text
                    # Each token has a chunk, without text too: text may have to wait for more.
                    reply.first_token_s = reply.first_token_s or now_s()
                reply.timings = chunk.timings or reply.timings
                reply.routing = chunk.routing or reply.routing
                reply.trace = chunk.trace or reply.trace
        if reply.first_token_s is None:
            raise AnswerError("the stream ended without a token")
        if reply.timings is None:
            raise AnswerError("the stream ended without timings")
        for name in wanted:
            if getattr(reply, name) is None:
                raise AnswerError(f"the stream ended without {name}")

    @contextmanager
    def _completions(self, body: dict[str, Any], reply: Reply) -> Iterator[httpx.Response]:
        """The answer to a POST as it arrives; AnswerError if it is an error's.

        Come again, as often as patience allows, while the base station is full.
        """
        while True:
            if self._backoff.wait() or reply.retries:
                reply.backoff_s = now_s() - reply.started_s
            with self._http.stream("POST", f"{self._bs_url}/v1/completions", json=body) as response:
                if response.is_success:
                    yield response
                    return
                response.read()
                full = response.status_code == httpx.codes.TOO_MANY_REQUESTS
                if not (full and self._backoff.again(response, now_s() - reply.started_s)):
                    with suppress(ValidationError):  # of another server than the base station
                        reply.error_code = _ApiAnswer.model_validate_json(
                            response.content
                        ).error.code
                    raise AnswerError(f"HTTP {response.status_code}: {one_line(response.text)}")
            reply.retries += 1

    def _ask(
        self, who: str, url: str, kind: type[_Answer], body: dict[str, Any] | None = None
    ) -> _Answer:
        """GET, or POST of a body."""
        try:
            method = "GET" if body is None else "POST"
            response = self._http.request(method, url, json=body, timeout=CONTROL_TIMEOUT_S)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(f"{who} URL {url!r}: {error}; allowed: http://HOST:PORT") from None
        except httpx.HTTPError as error:
            raise StackError(f"{who} not reachable at {url} ({error}); is the stack up?") from None
        if body is not None and response.status_code == 400:
            raise InputError(_refusal(response.content))
        if not response.is_success:
            text = one_line(response.text)
            raise StackError(f"{who} at {url}: HTTP {response.status_code}: {text}")
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise StackError(f"{who} at {url}: unexpected answer: {first_fault(error)}") from None


@contextmanager
def _told(reply: Reply) -> Iterator[Reply]:
    """A reply that tells what went wrong within, and when it ended."""
    try:
        yield reply
    except AnswerError as error:
        reply.error = str(error)
    except ValidationError as error:
        reply.error = f"unexpected data in the stream: {first_fault(error)}"
    except httpx.HTTPError as error:
        reply.error = f"{type(error).__name__}: {error}"
    reply.ended_s = now_s()


def _bounded(response: httpx.Response, max_bytes: int) -> bytes:
    data = bytearray()
    for block in response.iter_bytes():
        data += block
        if len(data) > max_bytes:
            raise AnswerError(f"the answer is larger than {max_bytes} bytes")
    return bytes(data)


def _refusal(content: bytes) -> str:
    try:
        return _Refusal.model_validate_json(content).detail
    except ValidationError:
        return one_line(content.decode(errors="replace"))
