"""Which prompts ask the same in other words: precision and recall on pairs written by hand, and each rule alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.data.prompt_pairs import ALL_DIFFERENT, ALL_SAME, DIFFERENT, SAME
from training.data import likeness
from training.data.differences import Asked, other_prompt
from training.data.likeness import Suspects, by_letters, by_meaning
from training.embed import Embedder, open_embedder
from training.journal import Journal
from training.rundir import HeldOut

DEFAULT = HeldOut.model_fields["similarity"].default
THRESHOLDS = (0.80, 0.85, 0.90, 0.95)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    journal = Journal(tmp_path_factory.mktemp("embedder") / "journal.jsonl", 1)
    yield open_embedder("", journal)
    journal.close()


def found(pairs: Sequence[tuple[str, str]], embedder: Embedder, similarity: float) -> set[tuple[str, str]]:
    """Those pairs of which the second asks the same as the first, as the guard finds them among all held-out firsts."""
    held_out = [Asked(first) for first in dict.fromkeys(first for first, _ in [*ALL_SAME, *ALL_DIFFERENT])]
    texts = [second for _, second in pairs]
    suspects = Suspects(held_out).find(texts, [Asked(text).normal for text in texts])
    alike = by_meaning(suspects, texts, held_out, embedder, similarity)
    hits = {(held_out[each.held_out].text, texts[each.index]) for each in alike}
    return hits & set(pairs)


def test_the_table_has_pairs_enough_of_both_kinds() -> None:
    assert len(SAME) >= 30 and len(DIFFERENT) >= 30
    assert len(set(ALL_SAME)) == len(ALL_SAME) and len(set(ALL_DIFFERENT)) == len(ALL_DIFFERENT)
    assert not set(ALL_SAME) & set(ALL_DIFFERENT)


def test_most_rewordings_are_found_and_hardly_another_prompt_of_the_same_pattern(embedder: Embedder) -> None:
    print(f"\n{len(ALL_SAME)} rewordings, {len(ALL_DIFFERENT)} different prompts of one pattern")
    rates: dict[float, tuple[float, float]] = {}
    for similarity in THRESHOLDS:
        right = len(found(ALL_SAME, embedder, similarity))
        wrong = len(found(ALL_DIFFERENT, embedder, similarity))
        rates[similarity] = right / len(ALL_SAME), right / (right + wrong)
        print(f"similarity {similarity:.2f}: {right} found, {wrong} wrongly; recall {rates[similarity][0]:.3f}, "
              f"precision {rates[similarity][1]:.3f}")  # fmt: skip
    recall, precision = rates[DEFAULT]
    assert recall >= 0.88 and precision >= 0.98
    assert [rates[each][0] for each in THRESHOLDS] == sorted((rates[each][0] for each in THRESHOLDS), reverse=True)


def test_hardly_a_rewording_is_put_aside_before_its_meaning_is_looked_at(embedder: Embedder) -> None:
    assert len(found(ALL_SAME, embedder, -1.0)) >= 0.98 * len(ALL_SAME)


def test_without_rules_embeddings_alone_would_be_wrong_about_many(embedder: Embedder) -> None:
    """What the rules are for: as many as a sixth of the different prompts are as near as rewordings."""
    first, second = (embedder.encode([pair[side] for pair in ALL_DIFFERENT]) for side in (0, 1))
    assert ((first * second).sum(axis=1) >= DEFAULT).sum() >= len(ALL_DIFFERENT) / 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 17 times 23?", "What is 23 times 18?"),
        ("Give me 1,000 words on cats.", "Give me 2,000 words on cats."),
        ("List five ways to save energy.", "List six ways to save energy."),
        ("Who won the 1st prize?", "Who won the 2nd prize?"),
        ("Who won the first prize?", "Who won the 2nd prize?"),
        ("Add 2 and 2.", "Add 2."),
        ("Is it 9:40?", "Is it 9:41?"),
        ("Translate 'good morning'.", "How do you translate “see you”?"),
        ("Who is Ada Lovelace?", "Who was Alan Turing?"),
        ("How do I boil an egg?", "How do I fry an egg?"),
        ("Sort from large to small.", "Sort from small to large."),
    ],
)
def test_other_numbers_names_quotes_words_and_directions_make_another_prompt(one: str, other: str) -> None:
    assert other_prompt(Asked(one), Asked(other)) and other_prompt(Asked(other), Asked(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Give me 1,000 words on cats.", "Write 1000 words about cats."),
        ("Give three examples.", "Name 3 examples."),
        ("Who won the 1st prize?", "Who won the first prize?"),
        ("Give an example of each.", "Give one example of each."),
        ("Who is the president of the United States?", "Who is the US president?"),
        ("Say 'hello' in French.", "How do I say “hello” in French?"),
        ("Is Python faster than Java?", "is java slower or faster than python"),
        ("Compare cats and dogs.", "Compare dogs and cats."),
        ("To Kyoto, plan a trip.", "Plan a trip to Kyoto."),
        ("What is France's capital?", "The capital of France is what?"),
    ],
)
def test_the_same_numbers_names_and_words_in_other_clothes_do_not(one: str, other: str) -> None:
    assert not other_prompt(Asked(one), Asked(other)) and not other_prompt(Asked(other), Asked(one))


class _EverythingAlike:
    """An embedder to which all texts are one; it reads those of up to so many characters."""

    def __init__(self, most: int) -> None:
        self.most = most

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 1), np.float32)

    def reads(self, texts: Sequence[str]) -> list[bool]:
        return [len(text) <= self.most for text in texts]


def test_what_an_embedder_does_not_read_to_its_end_is_compared_by_words_too() -> None:
    one = Asked("Read the text and sum it up. " + " ".join(f"word{i}" for i in range(60)))
    near = one.text.replace("word7 ", "").replace("word30 ", "")
    far = "Read the text and sum it up. " + " ".join(f"word{i}" for i in range(30, 90))
    pairs = [(0, 0), (1, 0)]
    assert [each.index for each in by_meaning(pairs, [near, far], [one], _EverythingAlike(10_000), 0.9)] == [0, 1]
    assert [each.index for each in by_meaning(pairs, [near, far], [one], _EverythingAlike(100), 0.9)] == [0]


def test_where_there_is_no_embedder_prompts_that_are_all_but_equal_are_found(tmp_path: Path) -> None:
    held_out = [Asked("Explain the difference between supervised and unsupervised learning with an example.")]
    texts = [
        "Explain the difference between supervised and unsupervised learning, with examples!",
        "How does supervised learning differ from unsupervised learning?",
    ]
    assert [each.index for each in by_letters([(0, 0), (1, 0)], texts, held_out)] == [0]
    assert by_letters([], texts, held_out) == []


def test_words_of_a_script_without_spaces_are_compared_one_by_one() -> None:
    one, near, far = "请写一首关于大海的诗", "请你写一首关于大海的诗歌", "法国的首都是哪里"
    suspects = Suspects([Asked(one)]).find([near, far], [Asked(near).normal, Asked(far).normal])
    assert suspects == [(0, 0)]


def test_suspects_are_the_same_however_few_prompts_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = [Asked(first) for first, _ in SAME]
    texts = [second for _, second in [*SAME, *DIFFERENT]]
    normals = [Asked(text).normal for text in texts]
    whole = Suspects(held_out).find(texts, normals)
    assert len(whole) > len(SAME) / 2
    monkeypatch.setattr(likeness, "MOST_COSINES", 100)
    assert sorted(Suspects(held_out).find(texts, normals)) == sorted(whole)
