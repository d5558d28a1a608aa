"""The engine's answer to a request, as HTTP receives it.

engine's thread ──deliver──► queue ──► begin(), async for      HTTP's event loop
                ◄─cancelled─ the client has left
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from fastapi import Request as HttpRequest

from orchestrator.contracts.http import Requests
from services.bs.engine.request import End, Event, Failure, FullError, Request, TooLargeError
from services.bs.experts.prober import ProbeSeries
from services.bs.http.errors import ApiError, unavailable


class Engine(Protocol):
    """A server of requests; `positions` is how many tokens of all together its memory holds."""

    positions: int

    def submit(self, request: Request | ProbeSeries) -> None:
        """Queue a request; raises FullError, TooLargeError."""

    def standing(self) -> Requests:
        """What runs and what waits."""


class ClientGoneError(Exception):
    """The client no longer waits for the answer."""


class Answer:
    """The engine's events for a request, until its End."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def deliver(self, event: Event) -> None:
        """Queue an event; any thread may call it."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def begin(self, engine: Engine, request: Request, http: HttpRequest) -> None:
        """Submit, and wait for the first event: a failure until then has an HTTP status."""
        submit(engine, request)
        self._watcher = asyncio.create_task(self._watch(request, http))
        self._first = await self._next()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield every event; ApiError if the request fails, ClientGoneError if its client left."""
        event = self._first
        while True:
            yield event
            if isinstance(event, End):
                return
            event = await self._next()

    async def _next(self) -> Event:
        event = await self._events.get()
        if event is None:
            raise ClientGoneError
        if isinstance(event, End | Failure):
            self._watcher.cancel()  # leaving now cancels nothing
        if isinstance(event, Failure):
            raise unavailable(event.message)
        return event

    async def _watch(self, request: Request, http: HttpRequest) -> None:
        await left(http)
        request.cancelled = True
        self._events.put_nowait(None)


async def left(http: HttpRequest) -> None:
    """Wait until the client has left; its body has been read, so nothing else can arrive."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def submit(engine: Engine, request: Request | ProbeSeries) -> None:
    """Queue a request; ApiError if there is no room, now or ever."""
    try:
        engine.submit(request)
    except FullError:
        raise ApiError(429, "too many requests are waiting", "rate_limit_error") from None
    except TooLargeError as error:
        raise ApiError(400, str(error), code="memory_exceeded") from None
