"""Every path argument of a command may begin with `~`, even where no shell expands it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from orchestrator.cli import app
from orchestrator.files.text_file import user_path
from tests.harness.command import Wdmoe


def commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield command.callback
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from commands(below.typer_instance)


PATHS = [
    (f"{command.__module__}.{command.__name__} {name}", hint.__metadata__[0])
    for command in commands(app)
    for name, hint in get_type_hints(command, include_extras=True).items()
    if hasattr(hint, "__metadata__")
    and (hint.__origin__ is Path or "pathlib.Path" in repr(get_args(hint)[0]))
]


@pytest.mark.parametrize(("where", "parameter"), PATHS)
def test_every_path_argument_expands_the_home_folder(where: str, parameter: Any) -> None:
    assert len(PATHS) > 10
    assert parameter.parser is user_path, where


def test_commands_find_files_in_the_home_folder(
    wdmoe: Wdmoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.yaml").write_text(
        "description: mine\nfading: {kind: none}\ndevices: [{distance_m: 60}]\n"
    )
    assert wdmoe("profile", "check", "~/p.yaml").out == f"{tmp_path}/p.yaml: ok, 1 devices\n"
    (tmp_path / "x.jsonl").write_text(
        '{"id":"a","prompt":"1 + 1 =","answer":"2","max_tokens":4,"stop":[]}\n'
    )
    assert wdmoe("prompts", "check", "jsonl:~/x.jsonl").code == 0
    monkeypatch.setenv("WDMOE_PROMPTS_DIR", "~")
    monkeypatch.setenv("WDMOE_PROFILES_DIR", "~")
    assert wdmoe("prompts", "check", "x").code == 0
    assert wdmoe("profile", "show", "p").code == 0
