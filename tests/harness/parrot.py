"""An engine that repeats its prompts, behind the base station's real HTTP API."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tokenizers import Tokenizer

from orchestrator.contracts.http import Requests
from orchestrator.process.root import ROOT
from services.bs.engine.request import (
    Echo,
    End,
    Failure,
    Finished,
    FullError,
    Piece,
    Request,
    TokenLogprob,
)
from services.bs.experts.prober import ProbeSeries
from services.bs.http import app
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers
from tests.harness.serving import serve

FOLDER = ROOT / "models" / "bundled"
CONTEXT_LENGTH = 64
TIMINGS = answers.timings(end_to_end_s=0.5)


def tokenizer() -> Tokenizer:
    """Return the bundled model's tokenizer."""
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def templated(folder: Path, template: str) -> Path:
    """Return the folder of the bundled tokenizer with another chat template."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "chat_template.jinja").write_text(template)
    return folder


class Parrot:
    """An engine that answers with the prompt's own tokens.

    The token at position i of a sequence has log-probability -i/8, and n likelier alternatives.
    Choice c of a prompt omits its first c tokens, and is likelier by c positions.

    Attributes:
        requests: the submitted requests.
        probes: the submitted probe series, which are never run.
        full: whether to refuse new requests.
        fails: the error that requests end with, before any piece or after some.
        said_before_failing: the number of those pieces.
        lost: the number of experts that each request's tokens lose.
        positions: the size of the cache; large, since no memory is used.
        go: while it is not set, a request waits after its first piece.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.probes: list[ProbeSeries] = []
        self.positions = 1 << 30
        self.full = False
        self.fails: str | None = None
        self.said_before_failing = 0
        self.lost = 0
        self.go = threading.Event()
        self.go.set()
        self._vocabulary = ModelTokenizer(tokenizer())

    def submit(self, request: Request | ProbeSeries) -> None:
        """Take a request; a thread of its own answers it."""
        if isinstance(request, ProbeSeries):
            self.probes.append(request)
            return
        if self.full:
            raise FullError
        self.requests.append(request)
        threading.Thread(target=self._answer, args=[request], daemon=True).start()

    def standing(self) -> Requests:
        """Report every request ever submitted, as if all were still running."""
        running = [request.progress() for request in self.requests]
        return Requests(running=running, waiting=[])

    def _answer(self, request: Request) -> None:
        made = 0
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        for index, prompt in enumerate(prompts):
            if self.fails is not None and not self.said_before_failing:
                request.deliver(Failure(self.fails))
                return
            if request.echo:
                echoed = tuple(self._token(request, i, id) for i, id in enumerate(prompt))
                request.deliver(Echo(index, echoed))
            choice = index % request.n
            said = prompt[choice:][: request.max_tokens]
            for i, id in enumerate(said):
                token = self._token(request, len(prompt) + i - choice, id)
                tokens = (token,) if request.logprobs is not None else ()
                request.deliver(Piece(index, self._vocabulary.decode([id]), i + 1, tokens))
                made += 1
                self.go.wait(10)
                if self.fails is not None and made == self.said_before_failing:
                    request.deliver(Failure(self.fails))
                    return
            reason = "stop" if len(said) < request.max_tokens else "length"
            request.deliver(Finished(index, reason, len(said), self.lost))
        routing = b"npz" if request.want_routing else None
        request.deliver(End(made, TIMINGS, None, routing, experts_lost=self.lost))

    def _token(self, request: Request, position: int, id: int) -> TokenLogprob:
        if position == 0 or request.logprobs is None:
            return TokenLogprob(id, None)
        likelier = tuple((300 + i, -position / 16) for i in range(request.logprobs))
        return TokenLogprob(id, -position / 8, likelier)


@contextmanager
def base_station(parrot: Parrot, folder: Path = FOLDER) -> Iterator[str]:
    """Serve a parrot, and yield the URL; `folder` has the chat template."""
    desk = ServedModel(parrot, ModelTokenizer(tokenizer()), "parrot", CONTEXT_LENGTH, words=912)
    with serve(app.create(desk, ChatTemplate(folder), 8, answers.health)) as url:
        yield url


class Http:
    """An HTTP client that checks errors."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def post(self, path: str, body: Any) -> httpx.Response:
        """Post a body, and return the response."""
        return self._client.post(path, json=body)

    def complete(self, prompt: Any, **fields: Any) -> dict[str, Any]:
        """Return a completion."""
        return self._good("/v1/completions", {"prompt": prompt, **fields})

    def chat(self, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Return the answer to chat messages."""
        return self._good("/v1/chat/completions", {"messages": list(messages), **fields})

    def refused(self, path: str, body: Any, status: int = 400) -> str:
        """Return the message of an error response, which must have OpenAI's format."""
        answer = self.post(path, body)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        message: str = error["message"]
        assert "\n" not in message
        return message

    def _good(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        reply: dict[str, Any] = answer.json()
        return reply
