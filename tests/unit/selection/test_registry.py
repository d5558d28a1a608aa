"""Policies as files: found by name, validated, and refused in one line if invalid."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import selection
from orchestrator.errors import InputError
from orchestrator.process.root import ROOT
from orchestrator.selection import LatencyPolicy, Policy

DOCS = ROOT / "docs" / "policies.md"
BUNDLED = ["channel", "random", "top1", "topk", "wlr"]


def refusal(name: str, params: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        selection.find(name, params)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_bundled_policies_are_registered() -> None:
    assert set(selection.names()) >= set(BUNDLED)
    for name in BUNDLED:
        policy = selection.load(name)
        assert policy.name == name
        assert policy.summary.endswith(".")
        assert issubclass(policy, LatencyPolicy) == (name in {"wlr", "channel"})


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        ("x", {}, f"policy 'x' is unknown; allowed: {', '.join(selection.names())}"),
        ("../cli", {}, f"policy '../cli' is unknown; allowed: {', '.join(selection.names())}"),
        ("wlr", {"theta": 0.7}, "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        ("wlr", {"theta": -0.1}, "policy wlr: theta is -0.1; allowed: 0 to 0.5"),
        ("wlr", {"theta": float("nan")}, "policy wlr: theta is nan; allowed: 0 to 0.5"),
        ("wlr", {"theta": "0.2"}, "policy wlr: theta is '0.2'; allowed: 0 to 0.5"),
        ("wlr", {"theta": True}, "policy wlr: theta is True; allowed: 0 to 0.5"),
        ("wlr", {}, "policy wlr: theta is missing; allowed: 0 to 0.5"),
        (
            "wlr",
            {"theta": 0.1, "max_drops": 0},
            "policy wlr: max_drops is 0; allowed: a whole number, at least 1",
        ),
        (
            "wlr",
            {"theta": 0.1, "strict": 1},
            "policy wlr: strict is 1; allowed: true or false",
        ),
        (
            "wlr",
            {"theta": 0.1, "latency": "guessed"},
            "policy wlr: latency is 'guessed'; allowed: analytic, compute, measured, larger",
        ),
        (
            "channel",
            {"candidates": 0},
            "policy channel: candidates is 0; allowed: a whole number, at least 1, or 2k",
        ),
        ("topk", {"theta": 0.1}, "policy topk has no parameter theta; allowed: none"),
        (
            "channel",
            {"theta": 0.1},
            "policy channel has no parameter theta; allowed: latency, candidates",
        ),
    ],
)
def test_an_invalid_parameter_is_refused_in_one_line(
    name: str, params: dict[str, Any], line: str
) -> None:
    assert refusal(name, params) == line


@pytest.mark.parametrize(
    ("name", "params", "label"),
    [
        ("topk", {}, "topk"),
        ("wlr", {"theta": 0}, "wlr θ=0"),
        ("wlr", {"theta": 0.2, "strict": False, "max_drops": 1}, "wlr θ=0.2"),
        (
            "wlr",
            {"theta": 0.25, "strict": True, "max_drops": 2, "latency": "larger"},
            "wlr θ=0.25 latency=larger strict max_drops=2",
        ),
        ("channel", {"candidates": 3}, "channel candidates=3"),
    ],
)
def test_a_label_has_required_and_non_default_parameters(
    name: str, params: dict[str, Any], label: str
) -> None:
    policy = selection.find(name, params)
    assert policy.label == label
    assert selection.find(name, policy.model_dump()) == policy


def test_parameters_are_checked_without_torch() -> None:
    code = """
import sys
from orchestrator import selection
for name in selection.names():
    selection.load(name)
selection.find("wlr", {"theta": 0.2})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


HEAD = "from orchestrator.selection import Gate, Policy, Selection\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\nclass Mine(:\n", "{file}, line 2: SyntaxError: invalid syntax"),
        ("\nimport nothing_of_this_name\n", "{file}, line 2: ModuleNotFoundError: No module named"),
        (HEAD + "\nx = 1 / 0\n", "{file}, line 3: ZeroDivisionError: division by zero"),
        (HEAD + "class Mine(Policy):\n    theta: flaot\n", "{file}, line 3: NameError: name 'fl"),
        (
            "from __future__ import annotations\n"
            + HEAD
            + "class Mine(Policy):\n    theta: flaot\n    def select(self, gate): ...\n",
            "{file}: PydanticUndefinedAnnotation: name 'flaot' is not defined",
        ),
        ("raise SystemExit(\n    'two\\nlines')\n", "{file}, line 1: SystemExit: two lines"),
        ("x = '\0'\n", "{file}: "),
        (b"\xff\xfe", "{file}, line 1: SyntaxError: "),
        ("", "{file}: has 0 subclasses of Policy; allowed: exactly one"),
        (
            HEAD + "class A(Policy): ...\nclass B(Policy): ...\n",
            "{file}: has 2 subclasses of Policy; allowed: exactly one",
        ),
        (HEAD + "class Mine(Policy): ...\n", "{file}: Mine has no method select"),
        (
            "from typing import Callable\n"
            + HEAD
            + "class Mine(Policy):\n    of: Callable = max\n    def select(self, gate): ...\n",
            "{file}: PydanticInvalidForJsonSchema: ",
        ),
    ],
)
def test_an_invalid_file_is_refused_in_one_line_and_affects_no_other_policy(
    folder: Path, text: str | bytes, fault: str
) -> None:
    file = folder / "mine.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refusal("mine", {}).startswith("policy mine: " + fault.format(file=file))
    assert {"mine", *BUNDLED} <= set(selection.names())
    assert selection.find("wlr", {"theta": 0.2}).label == "wlr θ=0.2"


def test_an_error_below_a_policy_file_is_reported_at_its_line(folder: Path) -> None:
    file = folder / "mine.py"
    file.write_text("import json\n\njson.loads('{')\n")
    assert refusal("mine", {}).startswith(f"policy mine: {file}, line 3: JSONDecodeError: ")


def test_an_invalid_combination_is_refused_with_the_policy_s_message(
    folder: Path,
) -> None:
    (folder / "mine.py").write_text(
        HEAD
        + """
from pydantic import Field, model_validator

class Mine(Policy):
    least: float = Field(default=0.1, gt=0)
    most: float = 0.2

    @model_validator(mode="after")
    def _ordered(self):
        if self.least > self.most + 1:
            return {}["a slip"]
        if self.least > self.most:
            raise ValueError("least is above most")
        return self

    def select(self, gate): ...
"""
    )
    assert refusal("mine", {"least": 0.3}) == "policy mine: least is above most"
    assert refusal("mine", {"least": 0.0}) == "policy mine: least is 0.0; allowed: above 0"
    assert refusal("mine", {"least": 9.0}).endswith("mine.py, line 12: KeyError: 'a slip'")
    assert refusal("mine", {"most": []}) == "policy mine: most is []; allowed: a number"


def test_a_corrected_file_is_accepted(folder: Path) -> None:
    file = folder / "mine.py"
    file.write_text("class Mine(:\n")
    refusal("mine", {})
    file.write_text(HEAD + "class Mine(Policy):\n    def select(self, gate): ...\n")
    assert selection.find("mine", {}).label == "mine"


def test_the_example_of_the_docs_is_found_by_name_and_passes_its_test(folder: Path) -> None:
    policy, test = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(policy.splitlines()) <= 30
    (folder / "share.py").write_text(policy)
    assert issubclass(selection.load("share"), Policy)
    assert selection.find("share", {"least": 0.3}).label == "share least=0.3"
    assert refusal("share", {"least": 1}) == "policy share: least is 1; allowed: 0 to 0.5"
    names: dict[str, Any] = {}
    exec(test, names)
    (check,) = [value for name, value in names.items() if name.startswith("test_")]
    check()


def test_the_docs_name_every_policy_and_every_parameter() -> None:
    page = DOCS.read_text()
    for name in BUNDLED:
        assert f"| `{name}` |" in page
        for parameter in selection.load(name).model_fields:
            assert f"`{parameter}`" in page
