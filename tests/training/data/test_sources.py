"""Examples from references: joined, limited, journalled."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import orjson
import pytest
from huggingface_hub import constants

from tests.minihub import MiniHub
from training.commits import Commits
from training.data.examples import Example
from training.data.lines import BadRow
from training.data.sources import Part, joined, load_examples
from training.errors import DataError, InputError
from training.journal import Journal, Record, read_lines
from training.rundir import ResolvedInput


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", 1)


def text_file(path: Path, *texts: str) -> Path:
    path.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    return path


def found(reference: str, path: Path, **facts: str) -> dict[str, ResolvedInput]:
    return {reference: ResolvedInput(reference=reference, path=str(path), **facts)}  # type: ignore[arg-type]


def texts(parts: list[Part[Example]]) -> list[str | None]:
    return [example.text for example in joined(parts)]


def test_data_sets_are_joined_in_order_and_journalled(journal: Journal, tmp_path: Path) -> None:
    one, two = text_file(tmp_path / "one.jsonl", "a", "b"), text_file(tmp_path / "two.jsonl", "c")
    inputs = {**found("data:one", one), **found("path:two.jsonl?rows=5", two)}
    assert texts(load_examples(["data:one", "path:two.jsonl?rows=5"], inputs, journal, Commits())) == ["a", "b", "c"]
    lines = [line for line in read_lines(tmp_path / "journal.jsonl", 0).lines if isinstance(line, Record)]
    told = [line.body for line in lines if line.kind == "artifact"]
    assert [(entry["path"], entry["facts"]["rows"]) for entry in told] == [
        ("data:one", 2),
        ("path:two.jsonl?rows=5", 1),
    ]
    read = [line.body for line in lines if line.kind == "progress"]
    assert [(entry["task"], entry["done"], entry["total"]) for entry in read] == [
        ("reading one.jsonl", 26, 26),
        ("reading two.jsonl", 13, 13),
    ]
    assert told[0]["facts"]["sha256"] == hashlib.sha256(one.read_bytes()).hexdigest()


def test_rows_limit_a_file_and_a_folder(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    text_file(folder / "1.jsonl", "a", "b")
    text_file(folder / "2.jsonl", "c", "d")
    (folder / "notes.md").write_text("not data")
    whole = load_examples(["path:data"], found("path:data", folder), journal, Commits())
    assert texts(whole) == ["a", "b", "c", "d"]
    assert texts(load_examples(["path:d?rows=3"], found("path:d?rows=3", folder), journal, Commits())) == [
        "a",
        "b",
        "c",
    ]
    assert texts(load_examples(["path:d?rows=1"], found("path:d?rows=1", folder), journal, Commits())) == ["a"]


def test_a_file_that_changed_since_it_was_checked_is_refused(journal: Journal, tmp_path: Path) -> None:
    inputs = found("data:one", text_file(tmp_path / "one.jsonl", "a"), sha256="0" * 64)
    with pytest.raises(DataError, match="data:one is not what it was"):
        load_examples(["data:one"], inputs, journal, Commits())


def test_a_reference_that_nobody_found_is_named(journal: Journal) -> None:
    with pytest.raises(InputError, match="data:nothing was not found"):
        load_examples(["data:nothing"], {}, journal, Commits())


def test_a_folder_without_data_is_named(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.jsonl file"):
        load_examples(["path:x"], found("path:x", tmp_path / "empty"), journal, Commits())


def test_bad_lines_are_named_before_any_is_used(journal: Journal, tmp_path: Path) -> None:
    path = text_file(tmp_path / "one.jsonl", "a")
    with path.open("ab") as file:
        file.write(b"broken\nbroken\n")
    with pytest.raises(BadRow, match=r"Line 2 of one.jsonl: .* \(1 more bad lines\)"):
        load_examples(["data:one"], found("data:one", path), journal, Commits())


def test_preferences_are_not_trained_on_here(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    with pytest.raises(DataError, match="data:pairs holds preferences; this stage trains on chats or texts"):
        load_examples(["data:pairs"], found("data:pairs", path), journal, Commits())


def test_rows_of_the_hub_are_read_checked_and_limited(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo").mkdir()
    text_file(tmp_path / "repo" / "train.jsonl", "a", "b", "c")
    with MiniHub() as hub:
        hub.add("dataset", "me/texts", tmp_path / "repo")
        text_file(tmp_path / "repo" / "train.jsonl", "a", "b\0")
        hub.add("dataset", "me/bad", tmp_path / "repo")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        assert texts(load_examples(["hf:me/texts?rows=2"], {}, journal, Commits())) == ["a", "b"]
        with pytest.raises(DataError, match="hf:me/bad, row 2: “text” holds a NUL"):
            load_examples(["hf:me/bad"], {}, journal, Commits())


def test_the_garbage_collector_is_on_again_afterwards(journal: Journal, tmp_path: Path) -> None:
    load_examples(["data:one"], found("data:one", text_file(tmp_path / "one.jsonl", "a")), journal, Commits())
    assert gc.isenabled()
    with pytest.raises(InputError):
        load_examples(["data:nothing"], {}, journal, Commits())
    assert gc.isenabled()
