"""The middleware that every HTTP request passes before its route.

CORS, where origins are allowed ─► HEAD as GET ─► bodies of bounded size ─► routes
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.bs.http import loss
from services.bs.http.errors import ApiError
from services.bs.http.openai.schema import IGNORED_FIELDS

MAX_BODY_BYTES = 8 << 20


def install(app: FastAPI, cors_origins: Sequence[str]) -> None:
    """Add the middleware to an application; without origins, no web page may read answers."""
    app.add_middleware(_Bounded)
    app.add_middleware(_Head)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", IGNORED_FIELDS, loss.HEADER],
        )


class _Head:
    """Middleware that answers HEAD as GET; the server sends only the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class _Bounded:
    """Middleware that refuses bodies that are too large: unread, if their length is announced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if int(length) > MAX_BODY_BYTES:  # the server has checked that it is a number
            await _too_large().response()(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self._app(scope, counted, send)


def _too_large() -> ApiError:
    return ApiError(413, f"the body may have at most {MAX_BODY_BYTES} bytes")
