"""Prompts longer than the model's context: announced before a run, and shown with its accuracy.

The base station's HTTP API, its tokenizer and the orchestrator are real.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.client import Client
from orchestrator.contracts.http import Health
from services.bs.http import app
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers, parrot
from tests.harness.command import Wdmoe
from tests.harness.replay_stack import HEALTH
from tests.harness.serving import serve

CONTEXT = 64
LONG = "a long question " * 40


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch, orchestrator: str) -> Iterator[str]:
    monkeypatch.setattr(parrot, "TIMINGS", answers.timings())
    vocabulary = ModelTokenizer(parrot.tokenizer())
    desk = ServedModel(parrot.Parrot(), vocabulary, "tiny", CONTEXT, words=912)
    health = Health.model_validate({**HEALTH, "context_length": CONTEXT})
    with serve(app.create(desk, ChatTemplate(parrot.FOLDER), 8, lambda: health)) as url:
        monkeypatch.setenv("WDMOE_BS_URL", url)
        yield url


def write(folder: Path, *items: dict[str, Any]) -> str:
    file = folder / "x.jsonl"
    file.write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return f"jsonl:{file}"


def question(name: str, prompt: str, max_tokens: int = 4) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, "answer": "x", "max_tokens": max_tokens, "stop": []}


def mixed(folder: Path) -> str:
    short = [question(str(n), "1 + 1 =") for n in range(3)]
    return write(folder, *short, question("long", LONG), question("longer", LONG * 2))


def test_prompts_that_are_too_long_are_announced_and_shown_beside_the_accuracy(
    station: str, wdmoe: Wdmoe, tmp_path: Path
) -> None:
    tokens = len(ModelTokenizer(parrot.tokenizer()).encode(LONG * 2)[0]) + 4
    result = wdmoe("replay", mixed(tmp_path), "--out", str(tmp_path / "run"))
    assert result.code == 1
    assert result.err.splitlines()[0] == (
        "Warning: 2 of 5 prompts are longer, with max_tokens, than the model's context of 64 "
        f"tokens, and will not be answered; the longest, longer, needs {tokens}"
    )
    assert "Accuracy is over 3 of 5 prompts; 2 are too long for the model's context" in result.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["n"], summary["errors"], summary["too_long"]) == (5, 2, 2)
    assert summary["scored"] == 3
    lines = (tmp_path / "run" / "requests.jsonl").read_text().splitlines()
    codes = [json.loads(line)["error_code"] for line in lines]
    assert sorted(map(str, codes)) == ["None"] * 3 + ["context_length_exceeded"] * 2


def test_prompts_that_fit_cause_no_warning(station: str, wdmoe: Wdmoe, tmp_path: Path) -> None:
    result = wdmoe(
        "replay", write(tmp_path, question("a", "1 + 1 =")), "--out", str(tmp_path / "r")
    )
    assert (result.code, result.err) == (0, "")
    assert "Accuracy is over" not in result.out


def test_the_answers_tokens_and_the_choices_are_counted(
    station: str, wdmoe: Wdmoe, tmp_path: Path
) -> None:
    choices = {"id": "c", "prompt": "Ice is", "choices": [" cold", f" {LONG}"], "gold": 0}
    spec = write(tmp_path, question("a", "1 + 1 =", 64), choices, question("b", "1 + 1 =", 8))
    result = wdmoe("replay", spec, "--out", str(tmp_path / "run"))
    assert result.err.startswith("Warning: 2 of 3 prompts are longer, with max_tokens, than ")


def test_only_texts_that_may_be_too_long_are_sent_to_be_counted(
    station: str, wdmoe: Wdmoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    count = Client.count_tokens

    def record(client: Client, text: str) -> int:
        counted.append(text)
        return count(client, text)

    monkeypatch.setattr(Client, "count_tokens", record)
    wdmoe("replay", mixed(tmp_path), "--out", str(tmp_path / "run"))
    assert counted == [LONG, LONG * 2]


def test_a_sweep_announces_prompts_that_are_too_long_for_each_set(
    station: str, wdmoe: Wdmoe, tmp_path: Path
) -> None:
    out = str(tmp_path / "sweep")
    result = wdmoe("sweep", write(tmp_path, question("long", LONG)), "--theta", "", "--out", out)
    assert result.err.startswith("Warning: x: 1 of 1 prompts are longer, with max_tokens, than ")
