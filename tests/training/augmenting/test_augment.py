"""Whole augment runs on small models: what they leave, what is held out, what stops and goes on, what goes wrong."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.training.augmenting.making import lines, make_augment, outputs, question, sums, write_lines
from tests.training.small import logs, metrics, records, train, write_chats
from training.augmenting.candidates import read_candidates
from training.augmenting.funnel import Thresholds, sift
from training.config.augment import AugmentConfig
from training.data.formats import scan
from training.data.normal import digest
from training.errors import DataError, InputError
from training.rundir import HeldOut, RunDir, RunFile
from training.tokenizer import load_tokenizer

Made = tuple[RunDir, RunFile]


@pytest.fixture
def made(tmp_path: Path, writer: Path, reward_model: Path, data: Path, ask: str) -> Made:
    return make_augment(tmp_path / "run", f"path:{writer}", data, f"path:{reward_model}", writing=ask)


def again(run: RunFile, run_dir: RunDir, attempt: int = 2) -> RunFile:
    run = run.model_copy(update={"attempt": attempt})
    run_dir.write_config(run)
    return run


def prompt_of(row: dict[str, Any]) -> str:
    text: str = row["prompt"][-1]["content"]
    return text


def test_it_leaves_pairs_of_the_best_and_the_worst_answer_with_their_scores(made: Made, reward_model: Path) -> None:
    run_dir, run = made
    train(run_dir, run)
    facts = scan(run_dir.pairs)
    assert (facts.kind, facts.flaws) == ("preference", {})
    pairs, kept = lines(run_dir.pairs), []
    for _, group in groupby(lines(run_dir.candidates), key=lambda row: row["prompt_id"]):
        found = list(group)
        rows = {row.get("fate"): row for row in found}
        scores = [row["score"] for row in found if row.get("score") is not None]
        if "chosen" in rows:
            assert (rows["chosen"]["score"], rows["rejected"]["score"]) == (max(scores), min(scores))
            kept.append(
                (prompt_of(found[0]), rows["chosen"]["answer"], rows["rejected"]["answer"], max(scores), min(scores))
            )
    names = ("chosen", "rejected", "score_chosen", "score_rejected")
    assert [(prompt_of(row), *(row[name] for name in names)) for row in pairs] == kept
    assert len(pairs) == facts.rows > 5
    # The scores are those that transformers gives each answer alone.
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    tokenizer = load_tokenizer(reward_model)
    for row in pairs[:3]:
        chat = [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip()
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            assert row["score_chosen"] == pytest.approx(model(ids).logits.item(), abs=1e-4)


def test_what_was_not_drawn_remains_as_it_stood(made: Made) -> None:
    run_dir, run = made
    train(run_dir, run)
    remaining = lines(run_dir.remaining)
    assert len(remaining) == 42 - 17  # 0.4 of 42 prompts, rounded
    assert all(row in sums() for row in remaining)
    sources = {row["written_from"] for row in lines(run_dir.candidates)}
    drawn = {digest([{"role": "user", "content": row["prompt"]}]).hex()[:12] for row in sums() if row not in remaining}
    assert sources == drawn
    assert run_dir.remaining.read_bytes().splitlines()[0] + b"\n" in Path(
        run.inputs[str(run.config["dataset"][0])].path or ""
    ).read_bytes().splitlines(True)  # type: ignore[index]


def test_the_funnel_counts_what_the_candidates_say_and_the_log_tells_it(made: Made) -> None:
    run_dir, run = made
    train(run_dir, run)
    counted, rows = orjson.loads(run_dir.funnel.read_bytes()), lines(run_dir.candidates)
    answers = [row["fate"] for row in rows if "fate" in row]
    assert counted["answers"]["drawn"] == len(answers)
    assert counted["answers"]["kept"] == answers.count("chosen") + answers.count("rejected")
    for fate, count in counted["answers"]["dropped"].items():
        assert answers.count(fate) == count
    reasons = {row["prompt_id"]: row["prompt_reason"] for row in rows}
    assert counted["prompts"]["new"] == len(reasons) == 34
    for reason, count in counted["prompts"]["dropped"].items():
        assert list(reasons.values()).count(reason) == count
    assert counted["prompts"]["kept"] == len(lines(run_dir.pairs))
    assert f"{counted['prompts']['kept']} of 34 prompts give a pair." in logs(run_dir)
    assert "near-duplicates of the data's prompts" in logs(run_dir)
    assert len(records(run_dir, "sample")) == 5
    last = {name: value for (_, name), value in sorted(metrics(run_dir).items())}
    assert last["kept"] == len(lines(run_dir.pairs)) and last["repeated"] == 0
    assert last["mean_margin"] == pytest.approx(counted["mean_margin"])
    assert last["written"] == 34 and last["answered"] == len(answers)


def test_candidates_can_be_sifted_again_with_other_thresholds(made: Made) -> None:
    run_dir, run = made
    train(run_dir, run)
    config = AugmentConfig.model_validate(run.config)
    same = sift(read_candidates(run_dir.candidates), Thresholds.of(config))
    assert sum(each.reason is None for each in same) == len(lines(run_dir.pairs))
    tighter = Thresholds.of(config.model_copy(update={"max_prompt_similarity": 0.9}))
    kept = [each for each in sift(read_candidates(run_dir.candidates), tighter) if each.reason is None]
    assert 0 < len(kept) < len(lines(run_dir.pairs))
    assert all((each.prompt.similarity or 0) < 0.9 for each in kept)


def test_the_same_settings_make_the_same_and_another_seed_something_else(made: Made, tmp_path: Path) -> None:
    run_dir, run = made
    train(run_dir, run)
    first = outputs(run_dir)
    for name, seed in (("b", 0), ("c", 1)):
        other = RunDir(tmp_path / name)
        other.create()
        train(other, run.model_copy(update={"config": {**run.config, "seed": seed}}))
        assert (outputs(other) == first) is (seed == 0)


def test_a_model_that_follows_no_instructions_goes_on_with_a_text(
    tmp_path: Path, small_model: Path, reward_model: Path, data: Path
) -> None:
    (tmp_path / "text.txt").write_text("{prompt}\n{new_prompt}e\n")  # a random model writes an “e” soon
    run_dir, run = make_augment(
        tmp_path / "run", f"path:{small_model}", data, f"path:{reward_model}", writing=f"path:{tmp_path / 'text.txt'}",
        max_new_tokens=64, max_repetition=1.0, same_script=False,
    )  # fmt: skip
    train(run_dir, run)
    prompts = {row["prompt_id"]: row for row in lines(run_dir.candidates)}
    assert len(prompts) == 34
    assert not any("e" in prompt_of(row) for row in prompts.values()), "each ends before its end"
    assert sum(row["prompt_ended"] for row in prompts.values()) > 10


def test_prompts_of_the_data_are_answered_anew_where_none_are_to_be_written(
    tmp_path: Path, writer: Path, data: Path, reward_model: Path
) -> None:
    run_dir, run = make_augment(
        tmp_path / "run", f"path:{writer}", data, f"path:{reward_model}", new_prompts=0, max_prompt_similarity=0.5
    )
    train(run_dir, run)
    pairs = lines(run_dir.pairs)
    assert pairs and {prompt_of(row) for row in pairs} <= {question(index) for index in range(42)}
    assert not any("written_from" in row for row in pairs)
    assert {prompt_of(row) for row in pairs}.isdisjoint(row["prompt"] for row in lines(run_dir.remaining))


def test_the_checker_labels_answers_to_prompts_with_references(tmp_path: Path, writer: Path) -> None:
    rows = [
        {"prompt_id": str(row["n"]), "prompt": row["prompt"], "reference": row["chosen"] if row["n"] % 3 else None}
        for row in sums()
    ]
    data = write_lines(tmp_path / "prompts.jsonl", rows)
    run_dir, run = make_augment(
        tmp_path / "run", f"path:{writer}", data, "checker", new_prompts=0, fraction=1.0, candidates=6, temperature=2.0
    )
    train(run_dir, run)
    right = {row["prompt"]: row["reference"] for row in rows}
    for row in lines(run_dir.pairs):
        assert row["chosen"].strip().casefold() == right[prompt_of(row)].casefold()
        assert row["rejected"].strip().casefold() != right[prompt_of(row)].casefold()
        assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0)
    unjudged = {prompt_of(row) for row in lines(run_dir.candidates) if row["fate"] == "not judged"}
    assert unjudged and all(right[prompt] is None for prompt in unjudged)
    assert run_dir.remaining.read_bytes() == b"", "all prompts were drawn"


# -- held-out prompts ----------------------------------------------------------------------------------------------


def test_what_is_held_out_is_neither_written_from_nor_remains_nor_becomes_a_pair(
    tmp_path: Path, writer: Path, reward_model: Path, data: Path, ask: str
) -> None:
    held_out = HeldOut(dataset=f"path:{data}", n=12, path=str(tmp_path / "held_out.jsonl"))
    run_dir, run = make_augment(
        tmp_path / "run", f"path:{writer}", data, f"path:{reward_model}", held_out=held_out, writing=ask, fraction=1.0,
        temperature=1.0, max_leak_similarity=1.0,
    )  # fmt: skip
    train(run_dir, run)
    held = {prompt_of(row) for row in lines(Path(held_out.path))[1:]}
    assert len(held) == 12
    rows = lines(run_dir.candidates)
    leaked = [row for row in rows if row["leaked"]]
    assert {prompt_of(row) for row in rows} & held, "the writer writes sums at random: some are held out"
    assert {prompt_of(row) for row in leaked} >= {prompt_of(row) for row in rows} & held
    assert all(row["leak_similarity"] == 1.0 for row in leaked if prompt_of(row) in held)
    assert all("answer" not in row for row in leaked if prompt_of(row) in held), (
        "nobody answers what no threshold saves"
    )
    assert {prompt_of(row) for row in lines(run_dir.pairs)}.isdisjoint(held)
    sources = {row["written_from"] for row in rows}
    taken = next(record.body["facts"] for record in records(run_dir, "artifact") if "taken out" in record.body["name"])
    assert taken["equal"] == 12 and len(sources) == 42 - taken["equal"] - taken["nearly"]
    assert lines(run_dir.remaining) == []
    assert sources.isdisjoint(digest([{"role": "user", "content": text}]).hex()[:12] for text in held)


# -- stopping and going on -----------------------------------------------------------------------------------------


def test_stopped_again_and_again_it_makes_the_same(made: Made, tmp_path: Path) -> None:
    run_dir, run = made
    whole = RunDir(tmp_path / "whole")
    whole.create()
    train(whole, run)
    attempt = 1
    while train(run_dir, again(run, run_dir, attempt), stop_after=2 * attempt - 1):
        assert not run_dir.outputs.exists()
        attempt += 1
    assert attempt > 5
    assert outputs(run_dir) == outputs(whole)


def test_what_was_made_with_another_writer_or_judge_is_not_gone_on_with(
    made: Made, small_model: Path, writer: Path, tmp_path: Path
) -> None:
    run_dir, run = made
    assert train(run_dir, run, stop_after=3)
    other = {**run.config, "temperature": 0.5}
    with pytest.raises(InputError, match=r"what writes changed \(temperature\)"):
        train(run_dir, run.model_copy(update={"config": other, "attempt": 2}))


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_nothing_left_tells_the_funnel_and_leaves_the_candidates(made: Made) -> None:
    run_dir, run = made
    with pytest.raises(DataError, match=r"None of 34 prompts gives a pair: .*max_prompt_similarity 0\.01") as caught:
        train(run_dir, run.model_copy(update={"config": {**run.config, "max_prompt_similarity": 0.01}}))
    assert caught.value.failure.hint.startswith("Raise “Near-duplicate from”")
    assert caught.value.failure.field == "max_prompt_similarity"
    assert lines(run_dir.candidates) and run_dir.funnel.exists() and not run_dir.pairs.exists()


def test_data_of_two_kinds_is_refused(tmp_path: Path, writer: Path, reward_model: Path, data: Path) -> None:
    chats = write_chats(tmp_path / "chats.jsonl", 8)
    run_dir, run = make_augment(tmp_path / "run", f"path:{writer}", data, f"path:{reward_model}")
    both = {**run.config, "dataset": [f"path:{data}", f"path:{chats}"]}
    chats_input = run.inputs[f"path:{data}"].model_copy(update={"reference": f"path:{chats}", "path": str(chats)})
    run = run.model_copy(update={"config": both, "inputs": {**run.inputs, f"path:{chats}": chats_input}})
    with pytest.raises(DataError, match=r"holds preferences and .* holds chats: prompts are drawn from one kind"):
        train(run_dir, run)


def test_texts_have_no_prompts_to_draw(tmp_path: Path, writer: Path, reward_model: Path) -> None:
    data = write_lines(tmp_path / "texts.jsonl", [{"text": "Once upon a time."}])
    run_dir, run = make_augment(tmp_path / "run", f"path:{writer}", data, f"path:{reward_model}")
    with pytest.raises(DataError, match="this stage takes prompts from"):
        train(run_dir, run)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Write something.", "lacks {prompt}"),
        ("{new_prompt} {prompt}", "lacks {prompt}, before {new_prompt}"),
        ("{prompt} {new_prompt} {new_prompt}", "is not the last place"),
    ],
)
def test_writing_instructions_without_their_places_are_refused(
    made: Made, tmp_path: Path, text: str, said: str
) -> None:
    run_dir, run = made
    (tmp_path / "ask.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        train(run_dir, run)
    assert said in caught.value.failure.message and caught.value.failure.field == "writing"
