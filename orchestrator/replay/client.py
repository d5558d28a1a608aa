"""The HTTP client of a replay: what is in force, and one streamed completion with its times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError, StackError
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.records import Channel, Health, Interval, Intervals, Timings

# Long silences are legitimate: a slow link in the profile delays every token.
TIMEOUT = httpx.Timeout(10.0, read=300.0)
SHOWN_CHARACTERS = 200

_UNIX_ZERO_S = time.time() - time.perf_counter()
_Answer = TypeVar("_Answer", bound=BaseModel)


def now_s() -> float:
    """Unix time that never steps, so that differences of it are durations."""
    return _UNIX_ZERO_S + time.perf_counter()


@dataclass
class Reply:
    """How one request went; `error` says why it failed, and then `text` is what came before."""

    started_s: float
    first_token_s: float | None = None
    ended_s: float = 0.0
    text: str = ""
    timings: Timings | None = None
    error: str | None = None


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None


class _Error(BaseModel):
    message: str


class _Chunk(BaseModel):
    choices: list[_Choice] = []
    timings: Timings | None = None
    error: _Error | None = None


class _StreamError(Exception):
    """The base station's answer is not a whole completion."""


class Client:
    """Talks to one base station and one orchestrator."""

    def __init__(self, bs_url: str, orchestrator_url: str) -> None:
        # Not the environment's proxies: they would carry, and delay, what is measured here.
        self._http = httpx.Client(timeout=TIMEOUT, trust_env=False)
        self._bs_url = bs_url.rstrip("/")
        self._orchestrator_url = orchestrator_url.rstrip("/")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """What the base station serves and how; StackError if it does not say."""
        return self._get("base station", f"{self._bs_url}/healthz", Health)

    def channel(self) -> Channel:
        """Profile, policy and links in force; StackError if the orchestrator does not say."""
        return self._get("orchestrator", f"{self._orchestrator_url}/status", Channel)

    def intervals(self, since_s: float) -> list[Interval]:
        """What each device has applied since a Unix time; StackError if nobody says."""
        url = f"{self._orchestrator_url}/intervals?since_s={since_s}"
        return self._get("orchestrator", url, Intervals).root

    def complete(self, prompt: Prompt, model: str) -> Reply:
        """Send one prompt and follow its stream; whatever goes wrong is in the reply."""
        reply = Reply(now_s())
        try:
            self._stream(prompt, model, reply)
        except _StreamError as error:
            reply.error = str(error)
        except ValidationError as error:
            reply.error = f"unexpected data in the stream: {_first(error)}"
        except httpx.HTTPError as error:
            reply.error = f"{type(error).__name__}: {error}"
        reply.ended_s = now_s()
        return reply

    def _stream(self, prompt: Prompt, model: str, reply: Reply) -> None:
        body = {
            "model": model,
            "prompt": prompt.prompt,
            "max_tokens": prompt.max_tokens,
            "stop": prompt.stop,
            "temperature": 0,
            "stream": True,
            "timings": True,
        }
        with self._http.stream("POST", f"{self._bs_url}/v1/completions", json=body) as response:
            if not response.is_success:
                response.read()
                raise _StreamError(f"HTTP {response.status_code}: {_one_line(response.text)}")
            for data in _events(response):
                if data == b"[DONE]":
                    break
                chunk = _Chunk.model_validate_json(data)
                if chunk.error:
                    raise _StreamError(_one_line(chunk.error.message))
                for choice in chunk.choices:
                    reply.text += choice.text
                    # A completion of no text at all has its first token where it finishes.
                    if reply.first_token_s is None and (choice.text or choice.finish_reason):
                        reply.first_token_s = now_s()
                reply.timings = chunk.timings or reply.timings
            else:
                raise _StreamError("the stream ended before [DONE]")
        if reply.first_token_s is None or reply.timings is None:
            lacks = "a token" if reply.first_token_s is None else "timings"
            raise _StreamError(f"the stream ended without {lacks}")

    def _get(self, who: str, url: str, kind: type[_Answer]) -> _Answer:
        try:
            response = self._http.get(url, timeout=TIMEOUT.connect)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(f"{who} URL {url!r}: {error}; allowed: http://HOST:PORT") from None
        except httpx.HTTPError as error:
            raise StackError(f"{who} not reachable at {url} ({error}); is the stack up?") from None
        if not response.is_success:
            text = _one_line(response.text)
            raise StackError(f"{who} at {url}: HTTP {response.status_code}: {text}")
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise StackError(f"{who} at {url}: unexpected answer: {_first(error)}") from None


def _events(response: httpx.Response) -> Iterator[bytes]:
    """The data of each server-sent event.

    Not httpx' iter_lines(): that also splits at U+2028 and its like, which JSON texts may hold.
    """
    rest = b""
    for block in response.iter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARACTERS]
