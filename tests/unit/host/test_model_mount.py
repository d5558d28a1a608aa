"""The meaning of WDMOE_MODEL, and the folder that containers see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.host.model_mount import ModelMount
from orchestrator.moe import model_folder
from orchestrator.process import environment
from orchestrator.process.root import ROOT

BUNDLED = ROOT / "models" / "bundled"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "FILE", tmp_path / ".env")
    monkeypatch.delenv("WDMOE_MODEL", raising=False)
    monkeypatch.delenv("WDMOE_MODEL_NAME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(cache: Path) -> Path:
    """Copy the bundled model as in the cache of Hugging Face: links to blobs."""
    repository = cache / "models--me--tiny-mixtral"
    folder = repository / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(BUNDLED.iterdir())):
        shutil.copy(file, repository / "blobs" / f"blob{number}")
        (folder / file.name).symlink_to(f"../../blobs/blob{number}")
    return folder


def checked(mount: ModelMount) -> ModelMount:
    mount.check_links(model_folder.files(model_folder.check(mount.folder)))
    return mount


@pytest.mark.parametrize("value", ["mine", "./mine", "mine/", "sub/../mine", "~/mine", "link"])
def test_a_path_is_resolved_as_in_commands(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (here / "home").mkdir()
    base = here / "home" if value.startswith("~") else here
    folder = shutil.copytree(BUNDLED, base / "mine")
    (here / "link").symlink_to("mine")
    monkeypatch.setenv("WDMOE_MODEL", value)
    mount = checked(ModelMount.find())
    assert (mount.folder, mount.source) == (folder, folder)
    assert mount.environment() == {
        "WDMOE_MODEL_MOUNT": str(folder),
        "WDMOE_MODEL_SUBFOLDER": "",
        "WDMOE_MODEL_NAME": "link" if value == "link" else "mine",
    }


def test_a_path_in_the_settings_file_is_relative_to_the_checkout(here: Path) -> None:
    (here / ".env").write_text("WDMOE_MODEL=models/bundled/\n")
    assert ModelMount.find().folder == BUNDLED


def test_the_default_is_the_bundled_model() -> None:
    assert checked(ModelMount.find()) == ModelMount(BUNDLED, BUNDLED, "bundled")


def test_a_snapshot_is_mounted_with_its_repository_which_has_the_targets_of_its_links(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot(here)
    monkeypatch.setenv("WDMOE_MODEL", str(folder))
    mount = checked(ModelMount.find())
    assert mount.environment() == {
        "WDMOE_MODEL_MOUNT": str(here / "models--me--tiny-mixtral"),
        "WDMOE_MODEL_SUBFOLDER": f"/snapshots/{REVISION}",
        "WDMOE_MODEL_NAME": "tiny-mixtral",
    }


def test_the_name_may_be_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".env").write_text("WDMOE_MODEL_NAME=mixtral\n")
    assert ModelMount.find().environment()["WDMOE_MODEL_NAME"] == "mixtral"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_that_containers_cannot_follow_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, absolute: bool
) -> None:
    folder = shutil.copytree(BUNDLED, here / "mine")
    elsewhere = (folder / name).rename(here / f"other-{name}")
    (folder / name).symlink_to(elsewhere if absolute else f"../other-{name}")
    monkeypatch.setenv("WDMOE_MODEL", "mine")
    with pytest.raises(InputError, match=f"mine/{name} is a link to .*/other-{name}, which"):
        checked(ModelMount.find())


def test_a_snapshot_with_blobs_outside_its_repository_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot(here)
    blobs = folder.parents[1] / "blobs"
    blobs.rename(here / "moved")
    blobs.symlink_to(here / "moved")
    monkeypatch.setenv("WDMOE_MODEL", str(folder))
    with pytest.raises(InputError, match="which containers cannot see"):
        checked(ModelMount.find())


def test_a_loop_of_links_is_refused_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    monkeypatch.setenv("WDMOE_MODEL", "a")
    with pytest.raises(InputError, match=r"^WDMOE_MODEL: ") as caught:
        ModelMount.find()
    assert "\n" not in str(caught.value)
