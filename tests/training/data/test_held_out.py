"""The held-out prompts: which are drawn, that the first run's draw counts, and what a damaged or other file says."""

from __future__ import annotations

import multiprocessing
import random
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import constants

from tests.minihub import MiniHub
from training.data.examples import SetPrompt
from training.data.held_out import HeldOutSet, draw, held_out_set
from training.data.normal import content_id
from training.errors import InputError
from training.journal import Journal, Record, read_lines
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile


def prompt(text: str) -> SetPrompt:
    messages: Any = [{"role": "user", "content": text}]
    return SetPrompt(content_id(messages), messages)


def pair(text: str) -> dict[str, str]:
    return {"prompt": text, "chosen": "Yes.", "rejected": "No."}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def held_out(folder: Path, data: Path | None = None, run: str = "a", **changes: Any) -> HeldOutSet:
    """What a run of the experiment in `folder` gets."""
    reference = changes.pop("dataset", "path:pairs")
    wanted = HeldOut(dataset=reference, path=str(folder / "experiment" / "held_out.jsonl"), **{"n": 5, **changes})
    inputs = {reference: ResolvedInput(reference=reference, path=str(data))} if data else {}
    file = RunFile(
        run_id=1, name=run, experiment="e", stage="sft", attempt=1, config={}, inputs=inputs, held_out=wanted
    )
    run_dir = RunDir(folder / run)
    run_dir.create()
    journal = Journal(run_dir.journal, 1)
    try:
        found = held_out_set(file, run_dir, journal)
    finally:
        journal.close()
    assert found is not None
    return found


def logged(run_dir: RunDir) -> str:
    lines = read_lines(run_dir.journal, 0).lines
    return "\n".join(line.body["message"] for line in lines if isinstance(line, Record) and line.kind == "log")


def texts(prompts: list[SetPrompt]) -> list[str]:
    return [prompt.messages[0]["content"] for prompt in prompts]


def test_the_draw_is_the_same_whatever_the_order_of_the_rows() -> None:
    prompts = [
        prompt(f"How much is {i} and {j}{mark}") for i in range(20) for j in range(5) for mark in ("?", " ?", "")
    ]
    first, distinct = draw(prompts, 30, seed=4)
    assert (len(first), distinct) == (30, 100)  # that differ in more than spaces and punctuation
    for order in range(5):
        random.Random(order).shuffle(prompts)
        assert draw(prompts, 30, seed=4) == (first, 100)


def test_each_seed_draws_others_and_a_larger_draw_begins_with_a_smaller_one() -> None:
    prompts = [prompt(f"How much is {i}?") for i in range(200)]
    draws = [texts(draw(prompts, 20, seed)[0]) for seed in range(4)]
    assert len({frozenset(each) for each in draws}) == 4
    assert texts(draw(prompts, 50, 0)[0])[:20] == draws[0]


def test_every_prompt_is_as_likely_as_any_other() -> None:
    prompts = [prompt(f"How much is {i}?") for i in range(40)]
    drawn = [text for seed in range(1000) for text in texts(draw(prompts, 10, seed)[0])]
    counts = [drawn.count(text) for text in texts(prompts)]
    assert min(counts) > 200 and max(counts) < 300  # of 250, with a standard deviation of 13.7


def test_a_row_more_changes_one_prompt_at_most() -> None:
    prompts = [prompt(f"How much is {i}?") for i in range(300)]
    before = set(texts(draw(prompts, 50, 0)[0]))
    for number in range(300, 340):
        after = set(texts(draw([*prompts, prompt(f"How much is {number}?")], 50, 0)[0]))
        assert len(before - after) <= 1


def test_all_prompts_are_drawn_where_no_number_is_given() -> None:
    assert len(draw([prompt(f"How much is {i}?") for i in range(7)], None, 0)[0]) == 7


def test_the_first_runs_draw_counts_for_all_later_ones(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in range(30)])
    first = held_out(tmp_path, data)
    write(data, [pair(f"Who is number {i}?") for i in range(30)])
    assert held_out(tmp_path, data, run="b") == first
    assert held_out(tmp_path, None, run="c") == first  # the data set itself is not needed any more
    assert first.dataset == "path:pairs" and first.distinct == 30 and len(first.prompts) == 5
    assert (tmp_path / "experiment" / "held_out.jsonl").stat().st_mode & 0o777 == 0o600
    assert "5 prompts of path:pairs (it has 30 distinct ones) are held out of all training." in logged(
        RunDir(tmp_path / "c")
    )


def test_ids_categories_and_references_of_prompts_are_kept(tmp_path: Path) -> None:
    row = {"prompt_id": "p1", "prompt": "One and one?", "category": "sums", "reference": "2"}
    found = held_out(tmp_path, write(tmp_path / "set.jsonl", [row]), n=None)
    assert found.prompts == [SetPrompt("p1", [{"role": "user", "content": "One and one?"}], "sums", "2")]


def test_a_number_beyond_what_there_is_takes_all_and_says_so(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in (1, 2, 3, 3)])
    assert len(held_out(tmp_path, data, n=500).prompts) == 3
    said = "path:pairs has 3 distinct prompts, fewer than the 500 to hold out: all of them are held out."
    assert said in logged(RunDir(tmp_path / "a"))


def _draw_at_once(folder: Path, number: int, together: Barrier, answers: Any) -> None:
    """A run of its own data, so that who was first shows."""
    data = write(folder / f"pairs-{number}.jsonl", [pair(f"Who is {number} of {i}?") for i in range(50)])
    together.wait(60)
    answers.put(texts(held_out(folder, data, run=f"run-{number}").prompts))


def test_of_runs_that_draw_at_once_the_first_one_counts_for_all(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, answers = spawn.Barrier(4), spawn.Queue()
    runs = [spawn.Process(target=_draw_at_once, args=(tmp_path, number, together, answers)) for number in range(4)]
    for each in runs:
        each.start()
    found = [answers.get(timeout=120) for _ in runs]
    for each in runs:
        each.join(60)
        assert each.exitcode == 0
    assert found[0] and all(each == found[0] for each in found)
    assert [path.name for path in (tmp_path / "experiment").iterdir()] == ["held_out.jsonl"]


@pytest.mark.parametrize("change", [{"n": 6}, {"n": None}, {"seed": 1}, {"dataset": "path:other"}])
def test_a_file_that_was_drawn_otherwise_is_refused_with_both(tmp_path: Path, change: dict[str, Any]) -> None:
    data = write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in range(30)])
    held_out(tmp_path, data)
    with pytest.raises(InputError, match="drawn as 5 of path:pairs with seed 0, and this run wants") as caught:
        held_out(tmp_path, data, run="b", **change)
    assert "launch a new one" in caught.value.failure.hint


def test_the_similarity_may_change_since_it_decides_nothing_of_the_draw(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in range(30)])
    assert held_out(tmp_path, data) == held_out(tmp_path, data, run="b", similarity=1.0)


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"held_out": 3}\n', b'{"held_out": {"n": 5}}\n', b"\xff\n"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    data = write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in range(30)])
    first = held_out(tmp_path, data)
    path = tmp_path / "experiment" / "held_out.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"held_out\.jsonl is damaged") as caught:
        held_out(tmp_path, data, run="b")
    assert "Delete the file" in caught.value.failure.hint
    path.unlink()
    assert held_out(tmp_path, data, run="b") == first


def test_a_file_with_fewer_prompts_than_were_drawn_is_damaged(tmp_path: Path) -> None:
    held_out(tmp_path, write(tmp_path / "pairs.jsonl", [pair(f"How much is {i}?") for i in range(30)]))
    path = tmp_path / "experiment" / "held_out.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="damaged"):
        held_out(tmp_path, run="b")


def test_of_a_data_set_of_the_hub_the_first_runs_commit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "train.jsonl", [pair(f"How much is {i}?") for i in range(30)])
    with MiniHub() as hub:
        commit = hub.add("dataset", "me/pairs", tmp_path / "repo")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        first = held_out(tmp_path, dataset="hf:me/pairs")
        assert first.revision == commit
        write(tmp_path / "repo" / "train.jsonl", [pair("Who?")])
        assert hub.add("dataset", "me/pairs", tmp_path / "repo") != commit
        assert held_out(tmp_path, run="b", dataset="hf:me/pairs") == first
