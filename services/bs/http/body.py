"""A posted body: from bytes to a checked model, or to an error that names the field."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from services.bs.http.errors import ApiError, refused
from services.bs.http.openai.schema import MAX_NAMED_CHARACTERS, Body
from services.bs.http.response import ClientGoneError

Model = TypeVar("Model", bound=Body)


async def read(http: HttpRequest, model: type[Model]) -> Model:
    """Return the body as `model`, whatever its Content-Type; ApiError if it does not fit."""
    try:
        raw = await http.body()
    except ClientDisconnect:
        raise ClientGoneError from None
    value = _json(raw)
    if not isinstance(value, dict):
        raise ApiError(400, "body: allowed: a JSON object")
    try:
        body = model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False), value) from None
    if body.strict and (unknown := body.unknown()):
        raise refused(unknown[0], "is not a field of this request")
    return body


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        what = f"not JSON at character {error.pos}: {error.msg}"
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
    except (ValueError, RecursionError) as error:  # a number too long, a list too deep
        what = f"JSON that cannot be read: {error}"
    raise ApiError(400, f"body: {what}")


def _refusal(errors: list[ErrorDetails], body: dict[str, Any]) -> ApiError:
    """Return the most specific error: for a value with several forms, that of the nearest."""
    places = [_place(error, body) for error in errors]
    depths = [place.count(".") + place.count("[") for place in places]
    nearest = depths.index(max(depths))
    if errors[nearest]["type"] == "model_type":
        return refused(places[nearest], "allowed: a JSON object")
    return refused(places[nearest], errors[nearest]["msg"].removeprefix("Value error, "))


def _place(error: ErrorDetails, value: Any) -> str:
    """Return a field's full name, as `messages[0].role`, without pydantic's names of unions."""
    place = ""
    for part in error["loc"]:
        if isinstance(part, int) and isinstance(value, list):
            place += f"[{part}]"
            value = value[part]
        elif isinstance(value, dict) and (part in value or error["type"] == "missing"):
            place += f".{str(part)[:MAX_NAMED_CHARACTERS]}"
            value = value.get(part)
    return place.removeprefix(".") or "body"
