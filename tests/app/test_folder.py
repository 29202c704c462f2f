"""A run's directory as the page shows it: nothing outside, and no link."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import NotFound
from app.runs import files
from app.runs.folder import entries, open_file, read_json, usage
from app.settings import Settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "run"
    (root / "checkpoints" / "step-000010").mkdir(parents=True)
    (root / "cache").mkdir()
    (root / "env.json").write_text('{"python": "3.11"}')
    (root / "checkpoints" / "step-000010" / "state.json").write_text("{}")
    (root / "cache" / "train.npz").write_text("x")
    (root / "lock").write_text("")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "outside").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def test_plain_files_are_listed_and_links_pipes_and_caches_are_not(root: Path) -> None:
    assert [entry.path for entry in entries(root)] == ["env.json", "checkpoints/step-000010/state.json"]
    assert usage(root).checkpoints == 1


def test_what_is_pruned_while_one_looks_is_left_out(
    root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = os.walk

    def pruning_walk(top: Path, **options: bool) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, names in walk(top, **options):
            if folder.endswith("step-000010"):
                shutil.rmtree(folder)  # the trainer prunes between the listing and the look at each file
            yield folder, folders, names

    settings.run_folder(1).parent.mkdir(parents=True, exist_ok=True)
    root.rename(settings.run_folder(1))
    shutil.copytree(settings.run_folder(1) / "checkpoints", root / "checkpoints")
    monkeypatch.setattr(os, "walk", pruning_walk)
    assert [entry.path for entry in entries(root)] == []
    assert files.size(settings, [1]) == len('{"python": "3.11"}') + len("x")


def test_a_file_is_opened(root: Path) -> None:
    with open_file(root, "checkpoints/step-000010/state.json") as file:
        assert file.read() == b"{}"
    assert read_json(root, "env.json") == {"python": "3.11"}


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../secret.txt", "/etc/passwd", "checkpoints/../../secret.txt", "link.txt", "outside/secret.txt",
     "pipe", "checkpoints", "lock", "cache/train.npz", "env.json\0.txt", "env.json/", "//proc/self/root/etc/passwd", "missing"],
)  # fmt: skip
def test_nothing_else_is(root: Path, path: str) -> None:
    with pytest.raises(NotFound):
        open_file(root, path)


def test_a_run_without_a_directory_here_has_no_files(tmp_path: Path) -> None:
    assert entries(tmp_path / "none") == []
    assert usage(tmp_path / "none").bytes == 0
    assert read_json(tmp_path / "none", "env.json") is None


def test_a_broken_or_foreign_json_is_none(root: Path) -> None:
    (root / "env.json").write_text("{broken")
    assert read_json(root, "env.json") is None
    (root / "env.json").write_text("[1]")
    assert read_json(root, "env.json") is None
