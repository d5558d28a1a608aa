"""The base station's HTTP: OpenAI's API, /probe, /requests, /healthz, /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from services.bs import chat, completions
from services.bs.answer import ClientGoneError, submit
from services.bs.body import read
from services.bs.chat_template import ChatTemplate
from services.bs.desk import Desk
from services.bs.http_error import ApiError, refused, unavailable
from services.bs.prober import ProbeRequest, Probes
from services.bs.schema import ProbeBody

MAX_BODY_BYTES = 8 << 20
NOBODY_LISTENS = 499  # what proxies log of a client that left; nobody gets to read it


def create(
    desk: Desk,
    template: ChatTemplate,
    devices: int,
    health: Callable[[], tuple[bool, dict[str, Any]]],
) -> FastAPI:
    """The application; `health` says whether the engine runs, and details."""
    app = FastAPI(title="WDMoE base station", docs_url=None, redoc_url=None)
    app.add_middleware(_Bounded)
    app.include_router(completions.router(desk))
    app.include_router(chat.router(desk, template))
    began_s = int(time.time())

    @app.exception_handler(ApiError)
    async def _api_error(_: HttpRequest, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(ClientGoneError)
    async def _client_gone(_: HttpRequest, __: ClientGoneError) -> Response:
        return Response(status_code=NOBODY_LISTENS)

    @app.exception_handler(HTTPException)
    async def _http_error(_: HttpRequest, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail)).response()

    @app.get("/healthz")
    async def _healthz() -> JSONResponse:
        well, details = health()
        return JSONResponse(details, 200 if well else 503)

    @app.get("/metrics")
    async def _metrics(http: HttpRequest) -> Response:
        names = http.query_params.getlist("name[]")  # as prometheus_client's own servers have it
        registry = REGISTRY.restricted_registry(names) if names else REGISTRY
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/requests")
    async def _requests() -> JSONResponse:
        return JSONResponse(asdict(desk.engine.standing()))

    @app.get("/v1/models")
    async def _models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [model]})

    @app.get("/v1/models/{name:path}")
    async def _model(name: str) -> JSONResponse:
        desk.check_model(name)
        return JSONResponse(model)

    model = {"id": desk.model, "object": "model", "created": began_s, "owned_by": "wdmoe"}

    @app.post("/probe")
    async def _probe(http: HttpRequest) -> JSONResponse:
        body = await read(http, ProbeBody)
        if body.device >= devices:
            raise refused("device", f"is {body.device}; allowed: 0 to {devices - 1}")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Probes | None] = loop.create_future()

        def deliver(probes: Probes | None) -> None:
            loop.call_soon_threadsafe(done.set_result, probes)

        submit(desk.engine, ProbeRequest(body.device, body.size_bytes, body.count, deliver))
        probes = await done
        if probes is None:
            raise unavailable(f"device-{body.device} does not answer")
        return JSONResponse(asdict(probes))

    return app


class _Bounded:
    """Refuses a body before it is read, unless its length is told and allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let it through."""
        if scope["type"] == "http" and scope["method"] == "POST":
            length = Headers(scope=scope).get("content-length", "")
            error = None
            if not length.isdigit():
                error = ApiError(411, "a Content-Length is needed")
            elif int(length) > MAX_BODY_BYTES:
                error = ApiError(413, f"the body may have at most {MAX_BODY_BYTES} bytes")
            if error is not None:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
