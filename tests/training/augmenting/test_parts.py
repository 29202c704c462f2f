"""The pieces of an augment run by themselves: instructions, the draw, embeddings, scores from verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from numpy.typing import NDArray

from tests.minihub import MiniHub
from tests.training.augmenting.making import lines, make_augment, question, sums, write_lines
from training.augmenting.comparing import with_answers_compared
from training.augmenting.embedding import BLOCK, Embeddings
from training.augmenting.funnel import Candidate, NewPrompt
from training.augmenting.judged import parts, questions, with_scores
from training.augmenting.source import read_data, share_of, write_remaining
from training.augmenting.works import work_key
from training.augmenting.writing import Writing, clean, own_writing
from training.config import parse_config
from training.config.augment import AugmentConfig
from training.data.examples import Message
from training.embed import Embedder
from training.errors import Stopped
from training.journal import Journal
from training.judging.judge import Judged
from training.judging.judge import work_key as judge_key
from training.rundir import RunDir, RunFile

ASKED = [Message(role="system", content="Be brief."), Message(role="user", content="Why {prompt}?")]


# -- writing instructions ------------------------------------------------------------------------------------------


def test_a_request_shows_the_prompt_and_reads_what_is_answered() -> None:
    writing = Writing("One like: {prompt}", "it")
    assert not writing.goes_on
    assert writing.ask([Message(role="user", content="Why?")]) == "One like: Why?"
    assert writing.ask(ASKED) == "One like: [system]\nBe brief.\n\n[user]\nWhy {prompt}?"
    assert writing.read(" How? \n", True) == ("How?", True)
    assert writing.read("How", False) == ("How", False)


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ('"How?"', "How?"),
        ("New prompt: How?", "How?"),
        ("**How?**", "**How?**"),
        ("Prompt: “How?”", "How?"),
        ('"One" or "two"?', '"One" or "two"?'),
        ("Prompt engineering: what is it?", "Prompt engineering: what is it?"),
        ('"', '"'),
    ],
)
def test_labels_and_quotes_around_a_whole_prompt_are_left_off(said: str, prompt: str) -> None:
    assert Writing("{prompt}", "it").read(said, True) == (prompt, True)


def test_a_text_is_gone_on_with_up_to_what_stands_behind_the_new_prompt() -> None:
    writing = Writing("Q: {prompt}\nQ: {new_prompt}\nA:\n", "it")
    assert writing.goes_on
    assert writing.ask([Message(role="user", content="Why?")]) == "Q: Why?\nQ: "
    assert writing.read(" How?\nA: So.\nQ:", False) == ("How?", True)
    assert writing.read(" How?", False) == ("How?", False)
    assert writing.read("How?", True) == ("How?", True)
    alone = Writing("{prompt}\n{new_prompt}", "it")
    assert alone.read("One\nTwo", False) == ("One\nTwo", False)
    assert Writing("{prompt}\n{new_prompt}\n", "it").read("One\nTwo", False) == ("One", True)


def test_a_new_prompt_keeps_the_systems_word() -> None:
    assert own_writing().new_prompt(ASKED, "How?") == [ASKED[0], {"role": "user", "content": "How?"}]


def test_our_own_instructions_have_their_place() -> None:
    assert "Why not?" in own_writing().ask([Message(role="user", content="Why not?")])


def test_text_that_no_data_file_holds_is_cleaned() -> None:
    assert clean("a\0b\ufdd0c\ud83d") == "abc?"


# -- the draw ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "share", "drawn"), [(10, 0.25, 3), (10, 0.24, 2), (1, 0.1, 1), (3, 0.01, 1), (7, 1.0, 7)]
)
def test_a_share_is_rounded_and_at_least_one_prompt(count: int, share: float, drawn: int) -> None:
    assert share_of(count, share) == drawn


def opened(folder: Path, data: Path, **settings: object) -> tuple[AugmentConfig, RunFile, RunDir, Journal]:
    run_dir, run = make_augment(folder, "path:/nowhere", data, "checker", new_prompts=0, **settings)
    config = parse_config(dict(run.config))
    assert isinstance(config, AugmentConfig)
    return config, run, run_dir, Journal(run_dir.journal, 1)


def test_the_same_prompts_are_drawn_wherever_they_stand(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", sums())
    other = write_lines(tmp_path / "other.jsonl", [*sums()[::-1], *sums()[:5]])
    found = []
    for name, data in (("a", one), ("b", other)):
        config, run, run_dir, journal = opened(tmp_path / name, data, fraction=0.25)
        found.append({each.messages[-1]["content"] for each in read_data(config, run, run_dir, journal).chosen})
    assert found[0] == found[1] and len(found[0]) == 11
    config, run, run_dir, journal = opened(tmp_path / "c", one, fraction=0.25, seed=1)
    assert {each.messages[-1]["content"] for each in read_data(config, run, run_dir, journal).chosen} != found[0]


def test_all_rows_of_a_drawn_prompt_leave_the_rest_which_stays_as_it_stood(tmp_path: Path) -> None:
    text = "".join(f'{{ "n": {n},  "prompt_id": "{n}", "prompt": "{question(n % 10)}" }}\n\n' for n in range(30))
    data = tmp_path / "prompts.jsonl"
    data.write_text(text)
    config, run, run_dir, journal = opened(tmp_path / "run", data, fraction=0.3)
    source = read_data(config, run, run_dir, journal)
    assert len(source.prompts) == 10 and source.drawn == 3
    path = tmp_path / "remaining.jsonl"
    assert write_remaining(source, path, run_dir, journal) == 21
    drawn = {each.messages[-1]["content"] for each in source.chosen}
    kept = [line for line in text.splitlines(True) if line.strip() and not any(each in line for each in drawn)]
    assert path.read_text() == "".join(kept)


def test_rows_that_ask_nothing_are_not_drawn_and_remain(tmp_path: Path) -> None:
    asks_nothing = {"messages": [{"role": "assistant", "content": "Hello."}]}
    chat = {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]}
    data = write_lines(tmp_path / "chats.jsonl", [asks_nothing, chat])
    config, run, run_dir, journal = opened(tmp_path / "run", data, fraction=1.0)
    source = read_data(config, run, run_dir, journal)
    assert [each.messages for each in source.chosen] == [[{"role": "user", "content": "Hi?"}]]
    assert write_remaining(source, tmp_path / "remaining.jsonl", run_dir, journal) == 1
    assert lines(tmp_path / "remaining.jsonl") == [asks_nothing]


def test_rows_of_the_hub_remain_as_they_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    write_lines(tmp_path / "repo" / "train.jsonl", sums(10))
    with MiniHub() as hub:
        hub.add("dataset", "me/sums", tmp_path / "repo")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "")
        config, run, run_dir, journal = opened(tmp_path / "run", tmp_path / "none.jsonl", fraction=0.3)
        config = config.model_copy(update={"dataset": ["hf:me/sums?rows=8"]})
        source = read_data(config, run, run_dir, journal)
        assert (len(source.prompts), source.drawn) == (8, 2)
        assert write_remaining(source, tmp_path / "remaining.jsonl", run_dir, journal) == 6
    drawn = {each.messages[-1]["content"] for each in source.chosen}
    assert lines(tmp_path / "remaining.jsonl") == [row for row in sums(8) if row["prompt"] not in drawn]


# -- embeddings ----------------------------------------------------------------------------------------------------


class Lengths(Embedder):
    """Embeds a text by its length, and counts what it was asked: what an embedder is, without a model."""

    def __init__(self) -> None:
        super().__init__("lengths", None)
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(texts)
        angles = np.array([len(text) / 100 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_texts_are_embedded_once_also_after_a_kill_in_the_middle(tmp_path: Path) -> None:
    texts = ["x" * (n % 90) for n in range(2 * BLOCK + 10)]
    left = 2
    journal = Journal(tmp_path / "journal.jsonl", 1)

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    first, second = Lengths(), Lengths()
    with pytest.raises(Stopped):
        Embeddings(first, tmp_path / "cache", journal, stop).of(texts, "texts")
    assert first.asked == 2 * BLOCK
    found = Embeddings(second, tmp_path / "cache", journal, lambda: False).of(texts, "texts")
    assert second.asked == 10
    np.testing.assert_array_equal(found, Lengths().encode(texts))


def test_a_damaged_file_of_embeddings_is_made_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", 1)
    embeddings = Embeddings(Lengths(), tmp_path / "cache", journal, lambda: False)
    whole = embeddings.of(["a", "bb"], "texts")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(embeddings.of(["a", "bb"], "texts"), whole)


def test_only_the_best_and_the_worst_answer_are_compared_and_equal_ones_are_1(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", 1)
    embeddings = Embeddings(Lengths(), tmp_path / "cache", journal, lambda: False)
    answers = (
        Candidate("a" * 40, True, score=1.0),
        Candidate("b", True, score=0.5),
        Candidate("c" * 90, True, score=0.0),
    )
    unlike = NewPrompt("p", ASKED, candidates=answers)
    same = NewPrompt("q", ASKED, candidates=(Candidate("yes ", True, score=1.0), Candidate("yes", True, score=0.0)))
    near = NewPrompt("r", ASKED, candidates=(Candidate("yes", True, score=1.0), Candidate("not", True, score=0.0)))
    none = NewPrompt("s", ASKED, candidates=(Candidate("yes", True, score=1.0),))
    found = [each.answer_similarity for each in with_answers_compared([unlike, same, near, none], embeddings)]
    assert found == [pytest.approx(np.cos(0.5), abs=1e-5), 1.0, 0.999999, None]


# -- judging -------------------------------------------------------------------------------------------------------


def test_the_judge_gets_what_can_be_used_where_there_are_two() -> None:
    texts = [("yes", True), ("", True), ("cut", False), ("no", True)]
    prompts = [
        NewPrompt("p", ASKED, candidates=tuple(Candidate(text, ended) for text, ended in texts)),
        NewPrompt("q", ASKED, candidates=(Candidate("yes", True), Candidate("cut", False))),
        NewPrompt("r", ASKED),
    ]
    given = questions(prompts, {"p": "yes"})
    assert [(each.prompt_id, each.answers, each.reference) for each in given.questions] == [
        ("p", {"1": "yes", "4": "no"}, "yes")
    ]
    assert given.models == ["1", "4"]


def test_of_verdicts_the_score_is_the_mean_preference_over_all_pairs() -> None:
    prompt = NewPrompt("p", ASKED, candidates=tuple(Candidate(text, True) for text in "abcd"))
    said = [("1", "2", 1.0), ("1", "3", 0.5), ("2", "3", 0.0)]
    rows = [{"prompt_id": "p", "model_a": a, "model_b": b, "preference": value} for a, b, value in said]
    (found,) = with_scores([prompt], Judged(verdicts=rows))
    assert [each.score for each in found.candidates] == [0.75, 0.0, 0.75, None]


def test_a_model_here_judges_whole_parts_and_an_endpoint_what_is_missing() -> None:
    keys = [str(number) for number in range(600)]
    assert parts(keys, ["3", "599"], costs=False) == [keys[:256], keys[512:]]
    assert parts(keys, [], costs=False) == []
    assert parts(keys, ["3", "599"], costs=True) == [["3", "599"]]


def test_no_work_is_taken_for_one_of_the_judges() -> None:
    assert work_key("answer", "1", 1) not in {judge_key("answer", "1", 1), judge_key("1", "1", 1)}
