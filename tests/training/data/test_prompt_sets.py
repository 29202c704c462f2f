"""Prompts to answer, from every kind of reference and of row."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import constants

from tests.minihub import MiniHub
from training.data.prompt_sets import SetPrompt, load_prompts
from training.errors import DataError, InputError
from training.journal import Journal, Record, read_lines
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile


def asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answered(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def load(folder: Path, reference: str, path: Path | None = None, held_out: HeldOut | None = None) -> list[SetPrompt]:
    """As a respond run loads them."""
    inputs = {reference: ResolvedInput(reference=reference, path=str(path))} if path else {}
    run = RunFile(
        run_id=1, name="a", experiment="e", stage="respond", attempt=1, config={}, inputs=inputs, held_out=held_out
    )
    journal = Journal(folder / "journal.jsonl", 1)
    try:
        return load_prompts(reference, run, RunDir(folder), journal)
    finally:
        journal.close()


def logged(folder: Path) -> str:
    lines = read_lines(folder / "journal.jsonl", 0).lines
    return "\n".join(line.body["message"] for line in lines if isinstance(line, Record) and line.kind == "log")


def test_prompts_keep_their_ids_categories_and_references_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "set.jsonl",
        {"prompt_id": "b", "prompt": "Two?", "category": "sums", "reference": "2"},
        {"prompt_id": 7, "prompt": [{"role": "system", "content": "Be brief."}, asked("One?")], "note": "ignored"},
    )
    assert load(tmp_path, "data:set@1", path) == [
        SetPrompt("b", [asked("Two?")], "sums", "2"),
        SetPrompt("7", [{"role": "system", "content": "Be brief."}, asked("One?")]),
    ]


def test_an_id_that_is_given_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    rows = [{"prompt_id": "x", "prompt": "One?"}, {"prompt_id": "y", "prompt": "Two?"}]
    path = write(tmp_path / "set.jsonl", *rows, {"prompt_id": "x", "prompt": "Three?"})
    with pytest.raises(DataError, match=r"path:set, row 3: the prompt_id “x” was given before \(path:set, row 1\)"):
        load(tmp_path, "path:set", path)


def test_spaces_around_an_id_make_no_other_prompt_and_an_empty_category_is_none(tmp_path: Path) -> None:
    """As rows of answers are read: two prompts whose answers would be one are refused before anything is answered."""
    path = write(tmp_path / "set.jsonl", {"prompt_id": " x", "prompt": "One?", "category": ""})
    assert load(tmp_path, "data:set@1", path) == [SetPrompt("x", [asked("One?")])]
    path = write(tmp_path / "set.jsonl", {"prompt_id": "x", "prompt": "One?"}, {"prompt_id": "x ", "prompt": "Two?"})
    with pytest.raises(DataError, match="the prompt_id “x” was given before"):
        load(tmp_path, "path:set", path)


def test_an_id_that_is_given_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "1.jsonl", {"prompt_id": "x", "prompt": "One?"})
    write(folder / "2.jsonl", {"prompt_id": "x", "prompt": "Two?"})
    with pytest.raises(DataError, match=r"2.jsonl, row 1: the prompt_id “x” was given before \(path:set, 1.jsonl, row"):
        load(tmp_path, "path:set", folder)


def test_of_chats_the_beginning_up_to_the_first_answer_is_taken(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    path = write(
        tmp_path / "chats.jsonl",
        {"messages": [system, asked("One?"), answered("1"), asked("And two?"), answered("2")]},
        {"messages": [answered("Hello!"), asked("Hi"), answered("How are you?")]},
    )
    (prompt,) = load(tmp_path, "data:chats@1", path)
    assert prompt.messages == [system, asked("One?")]
    assert prompt.reference is None
    assert prompt.prompt_id == hashlib.sha256(b"system\0be brief\0user\0one\0").hexdigest()[:12]
    assert "1 row was left out, since nothing is asked before the answer." in logged(tmp_path)


def test_of_pairs_the_prompts_are_taken_and_equal_ones_count_once(tmp_path: Path) -> None:
    long = [asked("One?"), answered("1"), asked("Sure?")]
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "One?", "chosen": "1", "rejected": "2"},
        {"prompt": "  one ", "chosen": "uno", "rejected": "due"},  # the same but for case, spaces and punctuation
        {"chosen": [*long, answered("Yes")], "rejected": [*long, answered("No")]},
        {"prompt": "Same?", "chosen": "a", "rejected": "a"},  # nothing to learn, but something to ask
        {"chosen": [asked("A?"), answered("a")], "rejected": [asked("B?"), answered("b")]},
    )
    prompts = load(tmp_path, "path:pairs", path)
    assert [prompt.messages for prompt in prompts] == [[asked("One?")], long, [asked("Same?")]]
    assert "1 row was left out, since an earlier row has the same prompt." in logged(tmp_path)
    assert "1 row was left out, since nothing is asked before the answer." in logged(tmp_path)


def test_rows_limit_what_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", *({"prompt_id": str(i), "prompt": f"{i}?"} for i in range(5)))
    assert [prompt.prompt_id for prompt in load(tmp_path, "path:set?rows=2", path)] == ["0", "1"]


def test_texts_are_no_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.jsonl", {"text": "a"})
    with pytest.raises(DataError, match="holds texts; this stage takes prompts from chats or preferences or prompts"):
        load(tmp_path, "data:texts@1", path)


def test_a_set_that_nobody_found_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data:gone@1 was not found") as caught:
        load(tmp_path, "data:gone@1")
    assert caught.value.failure.field == "prompts"


def test_a_data_set_of_the_hub_is_read_at_the_commit_that_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "train.jsonl", {"prompt": "One?", "chosen": "1", "rejected": "2"})
    with MiniHub() as hub:
        hub.add("dataset", "me/pairs", tmp_path / "repo")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        first = load(tmp_path, "hf:me/pairs")
        write(tmp_path / "repo" / "train.jsonl", {"prompt": "Two?", "chosen": "2", "rejected": "1"})
        hub.add("dataset", "me/pairs", tmp_path / "repo")
        assert load(tmp_path, "hf:me/pairs") == first
        assert [prompt.messages for prompt in first] == [[asked("One?")]]


def test_held_out_prompts_of_an_experiment_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The experiment holds no prompts out") as caught:
        load(tmp_path, "held_out")
    assert caught.value.failure.field == "prompts"


def test_held_out_prompts_are_those_that_were_drawn(tmp_path: Path) -> None:
    rows = [{"prompt": f"How much is {i}?", "chosen": "a", "rejected": "b"} for i in range(30)]
    path = write(tmp_path / "pairs.jsonl", *rows)
    held_out = HeldOut(dataset="path:pairs", n=5, seed=3, path=str(tmp_path / "held_out.jsonl"))
    run = RunFile(
        run_id=1, name="a", experiment="e", stage="respond", attempt=1, config={}, held_out=held_out,
        inputs={"path:pairs": ResolvedInput(reference="path:pairs", path=str(path))},
    )  # fmt: skip
    journal = Journal(tmp_path / "journal.jsonl", 1)
    drawn = load_prompts("held_out", run, RunDir(tmp_path), journal)
    assert len(drawn) == 5
    assert load(tmp_path, "held_out", held_out=held_out) == drawn  # read back, the data set itself is not needed
    assert "5 prompts of path:pairs (it has 30 distinct ones) are held out of all training." in logged(tmp_path)
