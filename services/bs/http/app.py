"""The base station's HTTP: OpenAI's API, /probe, /requests, /healthz, /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from orchestrator.contracts.http import Health, Probes
from services.bs.experts.prober import ProbeSeries
from services.bs.http import middleware
from services.bs.http.body import read
from services.bs.http.chat import completions as chat
from services.bs.http.chat import responses
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.errors import ApiError, refused, unavailable
from services.bs.http.openai import completions, models, tokenize
from services.bs.http.openai.schema import ProbeBody
from services.bs.http.response import ClientGoneError, left, submit
from services.bs.http.submission import ServedModel

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left; no client reads it


def create(
    served: ServedModel,
    template: ChatTemplate,
    devices: int,
    health: Callable[[], Health],
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Return the application; `health` returns the answer of /healthz.

    `cors_origins`: origins of pages that may read answers in a browser.
    """
    app = FastAPI(title="WDMoE base station", docs_url=None, redoc_url=None)
    middleware.install(app, cors_origins)
    app.include_router(completions.router(served))
    app.include_router(chat.router(served, template))
    app.include_router(responses.router(served, template))
    app.include_router(tokenize.router(served, template))
    app.include_router(models.router(served))

    @app.exception_handler(ApiError)
    async def _api_error(_: HttpRequest, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(ClientGoneError)
    async def _client_gone(_: HttpRequest, __: ClientGoneError) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(HTTPException)
    async def _http_error(http: HttpRequest, error: HTTPException) -> Response:
        allowed = (error.headers or {}).get("Allow")
        if allowed is not None:
            extra = "HEAD, OPTIONS" if allowed == "GET" else "OPTIONS"
            allowed = f"{allowed}, {extra}"
        headers = {} if allowed is None else {"Allow": allowed}
        if http.method == "OPTIONS" and allowed is not None:
            return Response(status_code=204, headers=headers)
        response = ApiError(error.status_code, str(error.detail)).response()
        response.headers.update(headers)
        return response

    @app.get("/health")  # vLLM's name, which benchmark tools request
    @app.get("/healthz")
    async def _healthz() -> JSONResponse:
        found = health()
        return JSONResponse(found.model_dump(), 200 if found.status == "ok" else 503)

    @app.get("/metrics")
    async def _metrics(http: HttpRequest) -> Response:
        names = http.query_params.getlist("name[]")  # as in prometheus_client's own servers
        registry = REGISTRY.restricted_registry(names) if names else REGISTRY
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/requests")
    async def _requests() -> JSONResponse:
        return JSONResponse(served.engine.standing().model_dump())

    @app.post("/probe")
    async def _probe(http: HttpRequest) -> JSONResponse:
        body = await read(http, ProbeBody)
        if body.device >= devices:
            raise refused("device", f"is {body.device}; allowed: 0 to {devices - 1}")
        loop = asyncio.get_running_loop()
        done: asyncio.Queue[Probes | str] = asyncio.Queue()

        def deliver(probes: Probes | str) -> None:
            loop.call_soon_threadsafe(done.put_nowait, probes)

        request = ProbeSeries(body.device, body.size_bytes, body.count, deliver)
        submit(served.engine, request)
        answer, gone = asyncio.create_task(done.get()), asyncio.create_task(left(http))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            request.cancelled = True
            raise ClientGoneError
        gone.cancel()
        if isinstance(probes := answer.result(), str):
            raise unavailable(probes)
        return JSONResponse(probes.model_dump())

    return app
