"""The fixtures of clients: a stack that answers as its prompts say, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.client.client import Client
from tests.harness.replay_stack import full
from tests.harness.replay_stack import url as url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(url, url)
    yield client
    client.close()
    full.clear()
