"""lm-evaluation-harness, from its package, gives the same scores as `wdmoe replay`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from orchestrator.prompts import prompt_sets
from tests.stack.conftest import MODEL, PATIENCE_S, Stack

ITEMS = 30
OPTIONS = re.compile(r"(?P<question>.*) Options: (?P<options>.*)\.\nAnswer:")
# Like the harness' own arc_easy, but with items from a file.
TASK = {
    "task": "arc_of_facts",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "doc_to_choice": "{{choices.text}}",
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ],
}


def arc(path: Path) -> None:
    """Write questions that the model can answer, in the format of ARC.

    The choices of every second question are words, which differ in length.
    """
    lines = []
    for number, prompt in enumerate(prompt_sets.load("facts").prompts[:ITEMS]):
        match = OPTIONS.fullmatch(prompt.prompt)
        assert match is not None
        words, labels = zip(*(o.rsplit(" ", 1) for o in match["options"].split(", ")), strict=True)
        question = prompt.prompt.removesuffix("\nAnswer:") if number % 2 else match["question"]
        texts = labels if number % 2 else words
        choices = {"text": list(texts), "label": list(labels)}
        line = {"id": prompt.id, "question": question, "choices": choices}
        lines.append(json.dumps(line | {"answerKey": prompt.answer}))
    path.write_text("\n".join(lines) + "\n")


def harness(stack: Stack, items: Path, folder: Path) -> dict[str, Any]:
    """Run the harness with no host but the base station; return its results of the task."""
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(items)}}}
    (folder / "arc_of_facts.yaml").write_text(yaml.safe_dump(task))
    model = {
        "model": MODEL.name,
        "base_url": str(stack.bs.base_url.join("/v1/completions")),
        "tokenizer": str(MODEL),
    }
    command = [str(Path(sys.executable).parent / "lm_eval"), "run"]
    command += ["--model", "local-completions"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in model.items())]
    command += ["--tasks", str(task["task"]), "--include_path", str(folder)]
    command += ["--batch_size", "8", "--output_path", str(folder / "results.json")]
    done = subprocess.run(
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("results*.json")
    results: dict[str, Any] = json.loads(path.read_text())["results"][task["task"]]
    return results


def test_the_harness_and_a_replay_get_the_same_accuracy(stack: Stack, tmp_path: Path) -> None:
    stack.use("ideal")
    items = tmp_path / "facts.jsonl"
    arc(items)
    summary = stack.wdmoe("replay", f"arc:{items}", "--out", str(tmp_path / "run"))
    results = harness(stack, items, tmp_path)
    assert summary["accuracy"] == results["acc,none"]
    assert summary["accuracy_norm"] == results["acc_norm,none"]
    assert 0 < results["acc,none"] < 1
