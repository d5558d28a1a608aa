"""Settings by name, looked up as compose does: in the environment, then the checkout's `.env`."""

from __future__ import annotations

import os

from dotenv import dotenv_values

from orchestrator.errors import InputError
from orchestrator.process.root import ROOT

FILE = ROOT / ".env"


def setting(name: str, default: str = "") -> str:
    """Return the value of a setting, or `default` if it is absent or empty.

    Raises:
        InputError: `.env` is not UTF-8 text.
    """
    value = os.environ.get(name)
    if value is None:  # an empty variable overrides the file, as it does in compose
        try:
            value = dotenv_values(FILE, encoding="utf-8-sig").get(name)
        except UnicodeDecodeError as error:
            raise InputError(f"{FILE}: not UTF-8 text: {error.reason}") from None
    return value or default
