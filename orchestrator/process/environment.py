"""Settings by name, where compose finds them too: the environment, then the checkout's `.env`."""

from __future__ import annotations

import os

from dotenv import dotenv_values

from orchestrator.errors import InputError
from orchestrator.process.root import ROOT

FILE = ROOT / ".env"


def setting(name: str, default: str = "") -> str:
    """A setting's value, or `default` where it is absent or empty.

    Raises:
        InputError: `.env` is not text.
    """
    value = os.environ.get(name)
    if value is None:  # one that is set and empty hides the file's, as it does for compose
        try:
            value = dotenv_values(FILE, encoding="utf-8-sig").get(name)
        except UnicodeDecodeError as error:
            raise InputError(f"{FILE}: not UTF-8 text: {error.reason}") from None
    return value or default
