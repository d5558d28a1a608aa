"""One HTTP service of the stack: typed answers, and every fault in one line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, overload
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError, StackError, first_fault, one_line

TIMEOUT_S = 10.0
# Many times the largest answer: a /metrics page of a large model, a profile with its traces.
MAX_BYTES = 64 << 20

_Answer = TypeVar("_Answer", bound=BaseModel)


class TooLargeError(Exception):
    """An answer is larger than its bound."""


@dataclass(frozen=True)
class Service:
    """An HTTP service; errors use its `name`, and `timeout_s` limits a whole answer.

    Every method raises StackError if the service does not answer in time, or answers with an error
    or with unexpected data; and InputError if its URL is invalid, or it refuses the body.
    """

    name: str
    url: str
    http: httpx.Client
    timeout_s: float = TIMEOUT_S

    def get(self, path: str, kind: type[_Answer]) -> _Answer:
        """GET a document; one with status 503 describes a service that is unwell."""
        response, content = self._send("GET", path, None, self.timeout_s)
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            try:
                return kind.model_validate_json(content)
            except ValidationError:
                pass
        return self._document(path, response, content, kind)

    def text(self, path: str, query: Sequence[tuple[str, str]]) -> str:
        """GET a text."""
        response, content = self._send("GET", f"{path}?{urlencode(query)}", None, self.timeout_s)
        self._check(path, response, content)
        return content.decode(errors="replace")

    @overload
    def post(
        self, path: str, body: BaseModel, kind: type[_Answer], timeout_s: float | None = None
    ) -> _Answer: ...
    @overload
    def post(
        self, path: str, body: BaseModel, kind: None, timeout_s: float | None = None
    ) -> None: ...
    def post(
        self,
        path: str,
        body: BaseModel,
        kind: type[_Answer] | None,
        timeout_s: float | None = None,
    ) -> _Answer | None:
        """POST a document; `kind` None: nothing is expected back."""
        response, content = self._send("POST", path, body, timeout_s or self.timeout_s)
        if response.status_code in (400, 413):
            raise InputError(_detail(content))
        if kind is not None:
            return self._document(path, response, content, kind)
        self._check(path, response, content)
        return None

    def _send(
        self, method: str, path: str, body: BaseModel | None, timeout_s: float
    ) -> tuple[httpx.Response, bytes]:
        json = None if body is None else body.model_dump()
        until_s = time.monotonic() + timeout_s
        try:
            with self.http.stream(
                method, self.url + path, json=json, timeout=timeout_s
            ) as response:
                return response, bounded(response, MAX_BYTES, until_s)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(
                f"the {self.name}'s address {self.url!r}: {error}; allowed: http://HOST:PORT"
            ) from None
        except httpx.HTTPError:
            raise StackError(
                f"the {self.name} does not answer at {self.url}; is the stack up? (wdmoe up)"
            ) from None
        except TooLargeError as error:
            plain = path.partition("?")[0]
            raise StackError(f"the {self.name}: unexpected answer at {plain}: {error}") from None

    def _document(
        self, path: str, response: httpx.Response, content: bytes, kind: type[_Answer]
    ) -> _Answer:
        self._check(path, response, content)
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise StackError(
                f"the {self.name}: unexpected answer at {path}: {one_line(first_fault(error))}"
            ) from None

    def _check(self, path: str, response: httpx.Response, content: bytes) -> None:
        if response.is_success:
            return
        path = path.partition("?")[0]
        detail = f"HTTP {response.status_code} at {path}: {_detail(content)}"
        raise StackError(f"the {self.name}: {detail.removesuffix(': ')}")


def bounded(response: httpx.Response, max_bytes: int, until_s: float | None = None) -> bytes:
    """Return a whole answer; TooLargeError beyond `max_bytes`, ReadTimeout after `until_s`."""
    data = bytearray()
    for block in response.iter_bytes():
        data += block
        if len(data) > max_bytes:
            raise TooLargeError(f"larger than {max_bytes} bytes")
        if until_s is not None and time.monotonic() > until_s:
            raise httpx.ReadTimeout("too slow", request=response.request)
    return bytes(data)


class _Fault(BaseModel):
    message: str


class _Refusal(BaseModel):
    """The orchestrator's errors have a `detail`, the base station's are in OpenAI's form."""

    detail: str | None = None
    error: _Fault | None = None


def _detail(content: bytes) -> str:
    """Return the message of a service's error."""
    try:
        refusal = _Refusal.model_validate_json(content)
    except ValidationError:
        return one_line(content.decode(errors="replace"))
    return refusal.detail or (refusal.error.message if refusal.error else "")
