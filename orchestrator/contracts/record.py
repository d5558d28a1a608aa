"""What every JSON document has that processes exchange or that a run records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Check the fields it names strictly, and keep those of another version that it does not name.

    Kept, because a run records what the stack reported, whichever version wrote it.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class Request(BaseModel):
    """The body of a POST: fields that are not known are refused, so that a typo is noticed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
