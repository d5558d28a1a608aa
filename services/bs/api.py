"""The base station's HTTP: OpenAI's completions, /probe, /healthz, /metrics."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from tokenizers import Tokenizer

from services.bs import engine
from services.bs.prober import ProbeRequest, Probes
from services.bs.schema import CompletionRequest, ProbeBody

MAX_BODY_BYTES = 8 << 20


class ApiError(Exception):
    """An answer in OpenAI's error format."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def create(
    served: engine.Engine,
    tokenizer: Tokenizer,
    model: str,
    context_length: int,
    devices: int,
    health: Callable[[], tuple[bool, dict[str, Any]]],
) -> FastAPI:
    """The application; `health` says whether the engine runs, and details."""
    app = FastAPI(title="WDMoE base station", docs_url=None, redoc_url=None)

    @app.exception_handler(ApiError)
    async def _api_error(_: HttpRequest, error: ApiError) -> JSONResponse:
        return _error(error.status, str(error), error.kind)

    @app.exception_handler(HTTPException)
    async def _http_error(_: HttpRequest, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:2]) or "body"
        return _error(400, f"{place}: {first['msg']}")

    @app.middleware("http")
    async def _bounded(request: HttpRequest, call: Callable[..., Any]) -> Response:
        if request.method == "POST":
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return _error(411, "a Content-Length is needed")
            if int(length) > MAX_BODY_BYTES:
                return _error(413, f"the body may have at most {MAX_BODY_BYTES} bytes")
        response: Response = await call(request)
        return response

    @app.get("/healthz")
    async def _healthz() -> JSONResponse:
        well, details = health()
        return JSONResponse(details, 200 if well else 503)

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/completions")
    async def _completions(body: CompletionRequest) -> Response:
        asked, events = _submit(body)
        if body.stream:
            stream = _stream(body, asked, events)
            return StreamingResponse(stream, media_type="text/event-stream")
        return await _whole(body, asked, events)

    @app.post("/probe")
    async def _probe(body: ProbeBody) -> JSONResponse:
        if body.device >= devices:
            raise ApiError(400, f"device: is {body.device}; allowed: 0 to {devices - 1}")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Probes | None] = loop.create_future()

        def deliver(probes: Probes | None) -> None:
            loop.call_soon_threadsafe(done.set_result, probes)

        _queue(ProbeRequest(body.device, body.size_bytes, body.count, deliver))
        probes = await done
        if probes is None:
            raise ApiError(503, f"device-{body.device} does not answer", "server_error")
        return JSONResponse(asdict(probes))

    def _queue(request: engine.Request | ProbeRequest) -> None:
        try:
            served.submit(request)
        except engine.FullError:
            raise ApiError(429, "too many requests are waiting", "rate_limit_error") from None

    def _submit(body: CompletionRequest) -> tuple[engine.Request, asyncio.Queue[engine.Event]]:
        if body.model not in (None, model):
            raise ApiError(404, f"model: {body.model!r} is not served here, {model!r} is")
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[engine.Event] = asyncio.Queue()

        def deliver(event: engine.Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        asked = engine.Request(
            id=f"cmpl-{uuid.uuid4().hex}",
            prompt=_tokens(body),
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            seed=body.seed,
            stop=body.stops,
            want_logits=body.logits,
            want_routing=body.routing,
            deliver=deliver,
        )
        _queue(asked)
        return asked, events

    def _tokens(body: CompletionRequest) -> list[int]:
        size = tokenizer.get_vocab_size()
        if isinstance(body.prompt, str):
            ids: list[int] = tokenizer.encode(body.prompt).ids
        else:
            ids = body.prompt
            if not all(0 <= token < size for token in ids):
                raise ApiError(400, f"prompt: tokens must be from 0 to {size - 1}")
        if not ids:
            raise ApiError(400, "prompt: must have at least one token")
        if len(ids) + body.max_tokens > context_length:
            raise ApiError(
                400,
                f"prompt: its {len(ids)} tokens and max_tokens {body.max_tokens} exceed the "
                f"model's context of {context_length}",
            )
        return ids

    async def _whole(
        body: CompletionRequest, asked: engine.Request, events: asyncio.Queue[engine.Event]
    ) -> Response:
        text = ""
        while not isinstance(event := await events.get(), engine.End):
            if isinstance(event, engine.Failure):
                return _error(503, event.message, "server_error")
            text += event.text
        reply = _chunk(asked, text, event.finish_reason)
        reply["usage"] = _usage(asked, event)
        return JSONResponse(reply | _extras(body, event))

    async def _stream(
        body: CompletionRequest, asked: engine.Request, events: asyncio.Queue[engine.Event]
    ) -> AsyncIterator[str]:
        try:
            while not isinstance(event := await events.get(), engine.End):
                if isinstance(event, engine.Failure):
                    yield _line({"error": {"message": event.message, "type": "server_error"}})
                    return
                yield _line(_chunk(asked, event.text, None))
            last = _chunk(asked, "", event.finish_reason)
            last["usage"] = _usage(asked, event)
            yield _line(last | _extras(body, event))
            yield "data: [DONE]\n\n"
        finally:
            asked.cancelled = True  # has no effect on a request that has ended

    def _chunk(asked: engine.Request, text: str, finish_reason: str | None) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": asked.id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
        }

    return app


def _usage(asked: engine.Request, end: engine.End) -> dict[str, int]:
    return {
        "prompt_tokens": len(asked.prompt),
        "completion_tokens": end.completion_tokens,
        "total_tokens": len(asked.prompt) + end.completion_tokens,
    }


def _extras(body: CompletionRequest, end: engine.End) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if body.timings:
        extras["timings"] = end.timings
    if end.logits is not None:
        extras["logits"] = base64.b64encode(end.logits.numpy().astype("<f4").tobytes()).decode()
    if end.routing is not None:
        extras["routing"] = base64.b64encode(end.routing).decode()
    return extras


def _line(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _error(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status)
