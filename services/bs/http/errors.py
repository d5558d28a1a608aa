"""Errors in OpenAI's format."""

from __future__ import annotations

from fastapi.responses import JSONResponse

from orchestrator.contracts.openai import ErrorAnswer, Fault

RETRY_AFTER_S = 1


class ApiError(Exception):
    """An answer that is an error; `param` is the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        message = " ".join(message.split())
        super().__init__(message)
        self.status = status
        fault = Fault(message=message, type=kind, param=param, code=code)
        self.body = ErrorAnswer(error=fault).model_dump()

    def response(self) -> JSONResponse:
        """Return the response; with 429, it says when to retry."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == 429 else None
        return JSONResponse(self.body, self.status, headers)


def refused(param: str, message: str, code: str | None = None) -> ApiError:
    """Return the error for a field whose value is not allowed."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)


def unavailable(message: str) -> ApiError:
    """Return the error for a valid request that cannot be answered now."""
    return ApiError(503, message, "server_error")
