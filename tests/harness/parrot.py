"""An engine that says its prompts again, behind the base station's real HTTP."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tokenizers import Tokenizer

from orchestrator.process.root import ROOT
from services.bs.engine.progress import RequestsInProgress
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
from services.bs.experts.prober import ProbeRequest
from services.bs.http import app
from services.bs.http.openai.chat_template import ChatTemplate
from services.bs.http.submission import Desk
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness.serving import serve

FOLDER = ROOT / "models" / "bundled"
CONTEXT_LENGTH = 64
TIMINGS = {"end_to_end_s": 0.5}


def tokenizer() -> Tokenizer:
    """The bundled model's."""
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def templated(folder: Path, template: str) -> Path:
    """A checkpoint's tokenizer with another chat template."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "chat_template.jinja").write_text(template)
    return folder


class Parrot:
    """The token at a sequence's position i has log-probability -i/8, and n likelier ones.

    Choice c of a prompt leaves its first c tokens out, and is likelier by c positions.

    Attributes:
        requests: what was submitted.
        probes: series that were, and are never made.
        full: refuse what comes.
        fails: end requests with this, before anything is said or after a piece.
        said_before_failing: pieces.
        lost: experts that each request's tokens lose.
        positions: no memory is needed.
        go: while it is not set, a request waits after its first piece.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.probes: list[ProbeRequest] = []
        self.positions = 1 << 30
        self.full = False
        self.fails: str | None = None
        self.said_before_failing = 0
        self.lost = 0
        self.go = threading.Event()
        self.go.set()
        self._vocabulary = ModelTokenizer(tokenizer())

    def submit(self, request: Request | ProbeRequest) -> None:
        """Take a request; a thread of its own answers it."""
        if isinstance(request, ProbeRequest):
            self.probes.append(request)
            return
        if self.full:
            raise FullError
        self.requests.append(request)
        threading.Thread(target=self._answer, args=[request], daemon=True).start()

    def standing(self) -> RequestsInProgress:
        """All that it was ever asked, as if it still worked on it."""
        return RequestsInProgress([request.progress() for request in self.requests], [])

    def _answer(self, request: Request) -> None:
        made = 0
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        for index, prompt in enumerate(prompts):
            if self.fails is not None and not self.said_before_failing:
                request.deliver(Failure(self.fails))
                return
            if request.echo:
                told = tuple(self._token(request, i, id) for i, id in enumerate(prompt))
                request.deliver(Echo(index, told))
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
    """Its URL; `folder` has the chat template."""
    desk = Desk(parrot, ModelTokenizer(tokenizer()), "parrot", CONTEXT_LENGTH, words=912)
    with serve(app.create(desk, ChatTemplate(folder), 8, lambda: (True, {}))) as url:
        yield url


class Http:
    """Asks, and takes errors apart."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def post(self, path: str, body: Any) -> httpx.Response:
        """What comes back."""
        return self._client.post(path, json=body)

    def complete(self, prompt: Any, **fields: Any) -> dict[str, Any]:
        """A completion."""
        return self._good("/v1/completions", {"prompt": prompt, **fields})

    def chat(self, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """An answer to messages."""
        return self._good("/v1/chat/completions", {"messages": list(messages), **fields})

    def refused(self, path: str, body: Any, status: int = 400) -> str:
        """The message of an error, which has OpenAI's format."""
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
