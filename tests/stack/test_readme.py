"""The stack answers the README's example as shown there."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.process.root import ROOT
from tests.stack.conftest import BUNDLED, MODEL, Stack

README = (ROOT / "README.md").read_text()


@pytest.mark.skipif(MODEL != BUNDLED, reason="the README's question is for the bundled model")
def test_the_readmes_first_request_gets_the_answer_shown_there(stack: Stack) -> None:
    (body,) = re.findall(r"-d '(\{.*\})'", README)
    question = json.loads(body)
    answer = stack.bs.post("/v1/completions", json=question).json()["choices"][0]["text"]
    assert f"answers `{answer}`" in README
    first, second = map(int, re.findall(r"[0-9]+", question["prompt"]))
    assert answer.rpartition("####")[2].strip() == str(first + second)
