"""Augment runs whose writer, or judge, is behind an endpoint: a small server of chat completions answers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.training.augmenting.making import lines, make_augment, outputs, write_lines
from tests.training.chat_server import Asked, ChatServer, chat_server
from tests.training.small import logs, metrics, train
from training.errors import DataError, InputError
from training.rundir import HeldOut, RunDir, RunFile

THINGS = ["apples", "ships", "winters", "letters", "violins", "glaciers", "spoons", "planets", "beetles", "carpets"]


def drawn(asked: Asked, most: int) -> int:
    """A number that depends on what is asked and on the seed."""
    text = f"{asked.last} {asked.body.get('seed')}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % most


def teach(asked: Asked) -> str:
    """Writes prompts, answers them at different lengths, and as a judge prefers the longer answer."""
    if "Write one new prompt" in asked.last:
        return f'"How many {THINGS[drawn(asked, 10)]} fit into {THINGS[drawn(asked, 7)]} number {drawn(asked, 1000)}?"'
    if "BEGIN ANSWER 1" in asked.last:
        first, second = (re.search(rf"BEGIN ANSWER {n} \w+>>>\n(.*?)\n<<<END", asked.last, re.DOTALL) for n in (1, 2))
        assert first and second
        return (
            f"Because.\n{'A' if len(first[1]) > len(second[1]) else 'B' if len(first[1]) < len(second[1]) else 'tie'}"
        )
    return "It is hard to say. " * (1 + drawn(asked, 3)) + THINGS[drawn(asked, 10)]


def run_with(
    server: ChatServer, folder: Path, data: Path, judge: str = "api:teacher/judge", **settings: Any
) -> tuple[RunDir, RunFile]:
    more = {"fraction": 0.2, "new_prompts": 1, "max_repetition": 1.0, "max_answer_similarity": 1.0, **settings}
    return make_augment(folder, "api:teacher/large", data, judge, urls={"teacher": server.url}, **more)


def test_a_teacher_behind_an_endpoint_writes_answers_and_judges(tmp_path: Path, data: Path) -> None:
    with chat_server(teach) as server:
        run_dir, run = run_with(server, tmp_path / "run", data)
        train(run_dir, run)
        asked = list(server.asked)
    rows, pairs = lines(run_dir.candidates), lines(run_dir.pairs)
    prompts = {row["prompt_id"] for row in rows}
    assert len(prompts) == 8 and len(rows) == 24
    assert not any('"' in row["prompt"][-1]["content"] for row in rows), "quotes around a whole prompt are left off"
    writing = [each for each in asked if "Write one new prompt" in each.last]
    answering = [each for each in asked if each.last.startswith("How many") or "hard to say" in each.last]
    assert len(writing) == 8 and all("plus" in each.last for each in writing)
    assert {each.body["max_tokens"] for each in writing} == {20}
    assert {each.body["max_tokens"] for each in answering if "BEGIN" not in each.last} == {40}
    assert {each.body["temperature"] for each in writing} == {1.5}
    # Longer answers win both orders: a candidate's score is the share of the others that it is longer than.
    for row in pairs:
        assert len(row["chosen"]) > len(row["rejected"]) and 1 >= row["score_chosen"] > row["score_rejected"] >= 0
    by_prompt = [[row for row in rows if row["prompt_id"] == each] for each in prompts]
    for three in by_prompt:
        for row in three:
            others = [other for other in three if other is not row]
            beaten = [
                0.5 if len(o["answer"]) == len(row["answer"]) else float(len(o["answer"]) < len(row["answer"]))
                for o in others
            ]
            assert row["score"] == pytest.approx(sum(beaten) / len(beaten))
    assert {name: value for (_, name), value in sorted(metrics(run_dir).items())}["repeated"] == 0


def test_a_reward_model_behind_an_endpoint_scores_in_nemotrons_form(tmp_path: Path, data: Path) -> None:
    def answer(asked: Asked) -> str:
        scored = asked.body["messages"][-1]["role"] == "assistant"
        return f"reward:{len(asked.last)}" if scored else teach(asked)

    with chat_server(answer) as server:
        run_dir, run = run_with(server, tmp_path / "run", data, method="nemotron")
        train(run_dir, run)
    for row in lines(run_dir.pairs):
        assert (row["score_chosen"], row["score_rejected"]) == (len(row["chosen"]), len(row["rejected"]))


def test_what_a_teacher_makes_of_held_out_prompts_is_dropped_equal_and_reworded(tmp_path: Path, data: Path) -> None:
    held = write_lines(
        tmp_path / "held.jsonl",
        [{"prompt_id": "capital", "prompt": "What is the capital city of the kingdom of Norway?"},
         {"prompt_id": "bread", "prompt": "How do I bake a sourdough bread without a Dutch oven?"}],
    )  # fmt: skip
    said = iter(
        ["what is the capital city of the kingdom of norway", "Without a Dutch oven, how can I bake sourdough bread?"]
    )

    def answer(asked: Asked) -> str:
        return next(said, teach(asked)) if "Write one new prompt" in asked.last else teach(asked)

    held_out = HeldOut(dataset=f"path:{held}", path=str(tmp_path / "held_out.jsonl"))
    with chat_server(answer) as server:
        run_dir, run = run_with(
            server, tmp_path / "run", data, held_out=held_out, concurrency=1, max_leak_similarity=1.0
        )
        train(run_dir, run)
        asked = [each.last for each in server.asked]
    found = {row["prompt"][-1]["content"]: row for row in lines(run_dir.candidates)}
    equal = found["what is the capital city of the kingdom of norway"]
    reworded = found["Without a Dutch oven, how can I bake sourdough bread?"]
    assert (equal["leaked"], equal["leak_similarity"], equal["leak_nearest"]) == (True, 1.0, "capital")
    assert reworded["leaked"] and reworded["leak_nearest"] == "bread" and 0.85 <= reworded["leak_similarity"] < 1
    assert {equal["prompt_reason"], reworded["prompt_reason"]} == {"leaked"}
    assert "answer" not in equal and not any(
        text == "Without a Dutch oven, how can I bake sourdough bread?" for text in asked
    )
    assert len(lines(run_dir.pairs)) > 0


def test_what_a_teacher_repeats_of_the_data_or_of_itself_is_dropped_and_names_what_it_repeats(
    tmp_path: Path, data: Path
) -> None:
    said = ["Why do ships float?", "why do ships float", "What is one plus two?", "How do ships float?"]
    left = iter(said)

    def answer(asked: Asked) -> str:
        return next(left, teach(asked)) if "Write one new prompt" in asked.last else teach(asked)

    with chat_server(answer) as server:
        run_dir, run = run_with(server, tmp_path / "run", data, concurrency=1, max_prompt_similarity=0.9)
        train(run_dir, run)
    found = {row["prompt"][-1]["content"]: row for row in lines(run_dir.candidates)}
    first, again, of_data, near = (found[text] for text in said)
    assert first["prompt_reason"] is None and first["earlier_similarity"] is None, "the first has nothing before it"
    assert (again["earlier_similarity"], again["earlier_nearest"]) == (1.0, first["prompt_id"])
    assert again["prompt_reason"] == "near-duplicate" and "answer" not in again
    assert (of_data["data_similarity"], of_data["data_nearest"]) == (1.0, "What is one plus two?")
    assert of_data["prompt_reason"] == "near-duplicate"
    assert near["prompt_reason"] == "near-duplicate" and 0.9 <= near["earlier_similarity"] < 1
    assert near["earlier_nearest"] == first["prompt_id"] and "answer" in near, "another threshold could keep it"
    assert first["data_similarity"] < 0.9


def test_a_writer_that_writes_nothing_ends_the_run_with_what_to_do(tmp_path: Path, data: Path) -> None:
    with chat_server(lambda asked: "  \n") as server:
        run_dir, run = run_with(server, tmp_path / "run", data)
        with pytest.raises(DataError, match="None of 8 prompts gives a pair: 8 empty prompts") as caught:
            train(run_dir, run)
        assert len(server.asked) == 8, "nobody answers or judges what is empty"
    assert "writing instructions" in caught.value.failure.hint
    assert not run_dir.pairs.exists()


def test_a_judge_that_gives_all_the_same_score_ends_the_run_with_what_to_do(tmp_path: Path, data: Path) -> None:
    def answer(asked: Asked) -> str:
        return "reward:1.5" if asked.body["messages"][-1]["role"] == "assistant" else teach(asked)

    with chat_server(answer) as server:
        run_dir, run = run_with(server, tmp_path / "run", data, method="nemotron")
        with pytest.raises(DataError, match="8 the two scores are too close together") as caught:
            train(run_dir, run)
    assert "take another judge" in caught.value.failure.hint


def test_an_endpoint_does_not_go_on_with_texts(tmp_path: Path, data: Path) -> None:
    (tmp_path / "text.txt").write_text("{prompt}\n{new_prompt}")
    with chat_server(teach) as server:
        run_dir, run = run_with(server, tmp_path / "run", data, writing=f"path:{tmp_path / 'text.txt'}")
        with pytest.raises(InputError, match="answers chats"):
            train(run_dir, run)
        assert server.asked == []


@pytest.mark.parametrize("stop_after", [4, 30])
def test_what_was_paid_for_is_not_asked_again(tmp_path: Path, data: Path, stop_after: int) -> None:
    with chat_server(teach) as server:
        whole, run = run_with(server, tmp_path / "whole", data)
        train(whole, run)
        once = len(server.asked)
        server.asked.clear()
        run_dir, run = run_with(server, tmp_path / "run", data)
        assert train(run_dir, run, stop_after=stop_after)
        assert 0 < len(server.asked) < once
        train(run_dir, run.model_copy(update={"attempt": 2}))
        assert len(server.asked) == once
    assert outputs(run_dir) == outputs(whole)
    assert "made again" not in logs(run_dir)


def test_characters_that_no_data_file_holds_are_left_out(tmp_path: Path, data: Path) -> None:
    def answer(asked: Asked) -> str:
        return teach(asked) if "BEGIN ANSWER" in asked.last else f"{teach(asked)}\ud83d\ufdd0"

    with chat_server(answer) as server:
        run_dir, run = run_with(server, tmp_path / "run", data)
        train(run_dir, run)
    text = run_dir.pairs.read_text()
    assert "\ufdd0" not in text and "\\ud83d" not in text and lines(run_dir.pairs)
