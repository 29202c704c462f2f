"""Reward models that run here, held against transformers' own, one conversation at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.training.judging.given import given, question
from tests.training.judging.reward_models import make_reward_model
from tests.training.small import make_model
from training.batches import MicroBatch
from training.device import Device
from training.errors import ModelError, OutOfMemory, Stopped
from training.journal import Journal, Record, read_lines
from training.judging.answers import Answers
from training.judging.conversations import Conversations
from training.judging.models import Ids, ModelJudge, Score, classifier_scores, nemotron_scores
from training.judging.scores import SECOND, score_key

CPU = Device(torch.device("cpu"), half=False)
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {}, "llama": {"pad_token_id": None}, "gemma2": {"head_dim": 8, "sliding_window": 16},
    "mistral": {"sliding_window": 16}, "qwen3": {"head_dim": 8, "pad_token_id": 2},
}  # fmt: skip
"""Some with no padding token; qwen3 with one, <|im_end|>, that its conversations hold."""


def batch(*lengths: int) -> list[Ids]:
    """Token ids of some conversations; each ends in <|im_end|>, as ours do."""
    draw = np.random.default_rng(0)
    return [np.append(draw.integers(3, 250, length - 1), 2).astype(np.int32) for length in lengths]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_in_a_batch_are_transformers_own_of_each_alone(kind: str, tmp_path: Path) -> None:
    make_reward_model(tmp_path, kind, **KINDS[kind])
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    conversations = batch(5, 40, 2, 23, 17)
    with torch.no_grad():
        rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids in conversations]
        expected = [theirs(input_ids=row).logits.item() for row in rows]
    ours = classifier_scores(AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), CPU)(conversations)
    assert ours == pytest.approx(expected, abs=1e-5)
    assert np.std(expected) > 0.1, "they differ, or this shows nothing"


def test_a_batch_with_every_token_needs_no_padding_token(tmp_path: Path) -> None:
    make_reward_model(tmp_path, pad_token_id=None)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    every = np.arange(model.config.vocab_size, dtype=np.int32)
    conversations = [every[:100], every[90:190], every[180:]]
    with torch.no_grad():
        rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids in conversations]
        expected = [model(input_ids=row).logits.item() for row in rows]
    assert classifier_scores(model, CPU)(conversations) == pytest.approx(expected, abs=1e-5)


def test_in_bf16_near_scores_stay_apart(tmp_path: Path) -> None:
    """bf16 has 8 bits: near 40, its numbers lie 0.25 apart. The score's own sum is made in fp32."""
    make_reward_model(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    scores = classifier_scores(model, Device(torch.device("cpu"), half=True))(batch(*range(3, 40)))
    as_bf16 = torch.tensor(scores).bfloat16().float().tolist()
    assert sum(a != b for a, b in zip(scores, as_bf16, strict=True)) > 30


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_nemotrons_reward_is_what_its_card_computes(kind: str, tmp_path: Path) -> None:
    """The card: generate one token, and take the first score of the first row."""
    make_model(tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    conversations = batch(7, 31, 2, 16)
    expected = []
    for ids in conversations:
        row = torch.from_numpy(ids.astype(np.int64))[None]
        output = model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=1, return_dict_in_generate=True,
            output_scores=True, do_sample=False,
        )  # fmt: skip
        expected.append(output["scores"][0][0][0].item())
    ours = nemotron_scores(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), 0, CPU)(conversations)
    assert ours == pytest.approx(expected, abs=1e-5)
    assert np.std(expected) > 0.05


def test_nemotrons_reward_is_not_bent_by_settings_of_sampling(tmp_path: Path) -> None:
    make_model(tmp_path, "llama")
    plain = nemotron_scores(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), 0, CPU)(batch(9, 4))
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model.generation_config.update(do_sample=True, temperature=0.1, top_p=0.5)
    assert nemotron_scores(model, 0, CPU)(batch(9, 4)) == pytest.approx(plain, abs=1e-6)


# -- batches -------------------------------------------------------------------------------------------------------

LENGTHS = {"p1": (5, 9), "p2": (30, 31), "p3": (6, 4), "p4": (29, 8)}
ANSWERS = given(*(question(prompt_id, {"a": "x", "b": "y"}) for prompt_id in LENGTHS))


def judge(
    score: Score, tmp_path: Path, limit: MicroBatch, twice: Sequence[str] = (), answers: Answers = ANSWERS
) -> ModelJudge:
    made = Conversations()
    for prompt_id, lengths in LENGTHS.items():
        for model, length in zip("ab", lengths, strict=True):
            made.ids[prompt_id, model] = np.full(length, length, np.int32)
    journal = Journal(tmp_path / "journal.jsonl", 1)
    return ModelJudge(answers, twice, "reward:x", made, score, limit, {}, journal, seed=0)


def by_length(seen: list[list[int]]) -> Score:
    """A model whose score is the length."""

    def score(batch: Sequence[Ids]) -> list[float]:
        seen.append([len(ids) for ids in batch])
        return [float(len(ids)) for ids in batch]

    return score


def everything(judge: ModelJudge, begun: list[str] | None = None) -> dict[str, Any]:
    announced: list[str] = [] if begun is None else begun
    found: dict[str, Any] = {}
    for results in judge.do(judge.works(), announced.extend, lambda: False):
        assert set(results) <= set(announced)
        found |= results
    return found


def test_answers_of_similar_length_go_together_and_each_gets_its_own_score(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    begun: list[str] = []
    found = everything(judge(by_length(seen), tmp_path, MicroBatch(tokens=40)), begun)
    assert seen == [[4, 5, 6, 8], [9], [29], [30], [31]]
    expected = {
        score_key(p, model): float(n) for p, pair in LENGTHS.items() for model, n in zip("ab", pair, strict=True)
    }
    assert found == expected
    assert sorted(begun) == sorted(expected)


def test_the_second_time_each_has_other_company(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    both = judge(by_length(seen), tmp_path, MicroBatch(examples=3), ["p1", "p2", "p3", "p4"])
    found = everything(both)
    assert seen[:3] == [[4, 5, 6], [8, 9, 29], [30, 31]]
    assert sorted(chain(*seen[3:])) == sorted(chain(*seen[:3])) and [len(each) for each in seen[3:]] == [3, 3, 2]
    assert not any(sorted(each) in seen[:3] for each in seen[3:])
    assert found[score_key("p2", "b", SECOND)] == 31.0
    judged = both.conclude(found)
    assert judged.values["repeat_difference"] == judged.values["repeat_disagreement"] == 0.0
    assert judged.values["score_mean"] == sum(map(sum, LENGTHS.values())) / 8


def test_batches_are_halved_where_memory_runs_out_and_nothing_is_begun_twice(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    begun: list[str] = []

    def tight(batch: Sequence[Ids]) -> list[float]:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return by_length(seen)(batch)

    scorer = judge(tight, tmp_path, MicroBatch(examples=8))
    found = everything(scorer, begun)
    assert seen == [[4, 5], [6, 8], [9, 29], [30, 31]]
    assert len(found) == 8 and len(begun) == len(set(begun)) == 8
    said = [
        each.body["message"] for each in read_lines(tmp_path / "journal.jsonl", 0).lines if isinstance(each, Record)
    ]
    assert said == [f"Out of memory: micro-batches are now {count} examples." for count in (4, 2)]


def test_one_answer_that_does_not_fit_is_the_end(tmp_path: Path) -> None:
    def full(batch: Sequence[Ids]) -> list[float]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(OutOfMemory, match="even for one answer at a time"):
        everything(judge(full, tmp_path, MicroBatch(tokens=1000)))


def test_another_error_of_the_model_is_not_taken_for_full_memory(tmp_path: Path) -> None:
    def broken(batch: Sequence[Ids]) -> list[float]:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        everything(judge(broken, tmp_path, MicroBatch(tokens=1000)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_names_its_answer_and_is_not_kept(value: float, tmp_path: Path) -> None:
    def broken(batch: Sequence[Ids]) -> list[float]:
        return [value if len(ids) == 29 else 1.0 for ids in batch]

    kept: dict[str, Any] = {}
    scorer = judge(broken, tmp_path, MicroBatch(tokens=40))
    with pytest.raises(ModelError, match="the answer of “a” to the prompt “p4” no number"):
        for results in scorer.do(scorer.works(), lambda keys: None, lambda: False):
            kept |= results
    assert len(kept) == 5


def test_a_stop_is_heard_before_each_batch(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    scorer = judge(by_length(seen), tmp_path, MicroBatch(examples=2))
    with pytest.raises(Stopped):
        for _ in scorer.do(scorer.works(), lambda keys: None, lambda: len(seen) == 2):
            pass
    assert len(seen) == 2


def test_what_a_tokenizer_saved_elsewhere_gives_is_what_we_score(tmp_path: Path) -> None:
    """The usual use of a reward model from the Hub, against ours, from chats to scores."""
    from training.judging.conversations import conversations
    from training.tokenizer import load_tokenizer

    make_reward_model(tmp_path)
    theirs, model = (
        AutoTokenizer.from_pretrained(tmp_path),
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
    )
    answers = given(question("p1", {"a": "It is two.", "b": ""}), question("p2", {"a": "one\n", "b": "<script>\0שלום"}))
    expected = {}
    for each, name in answers.each():
        chat = [*(each.messages or []), {"role": "assistant", "content": each.answers[name]}]
        inputs = theirs.apply_chat_template(chat, tokenize=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected[each.prompt_id, name] = model(**inputs).logits.item()
    made = conversations(answers, load_tokenizer(tmp_path), 128, bare_end=False)
    ours = dict(zip(made.ids, classifier_scores(model, CPU)(list(made.ids.values())), strict=True))
    assert ours == pytest.approx(expected, abs=1e-5)


def test_two_thousand_short_answers_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.judging.conversations import conversations
    from training.judging.models import ModelJudge
    from training.tokenizer import load_tokenizer

    make_reward_model(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    answers = given(*(question(f"p{n}", {f"m{k}": f"It is {n} times {k}." for k in range(4)}) for n in range(500)))
    started = time.monotonic()
    made = conversations(answers, load_tokenizer(tmp_path), 128, bare_end=True)
    tokenized = time.monotonic()
    scorer = ModelJudge(
        answers, (), "reward:x", made, classifier_scores(model, CPU), MicroBatch(tokens=4096), {},
        Journal(tmp_path / "journal.jsonl", 1), 0,
    )  # fmt: skip
    assert len(everything(scorer)) == 2000
    ended = time.monotonic()
    with capsys.disabled():
        print(f"\n2,000 answers: {tokenized - started:.1f} s to tokenize, {ended - tokenized:.1f} s to score")
    assert ended - started < 60
