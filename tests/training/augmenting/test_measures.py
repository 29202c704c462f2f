"""Repetition and scripts, by hand."""

from __future__ import annotations

import pytest

from training.augmenting.measures import repetition, same_script


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("one two three four five", 0.0),
        ("a b c d a b c d", 1 / 5),  # abcd bcda cdab dabc abcd
        ("go go go go go go", 2 / 3),  # three runs, all alike
        ("Go, go! GO go go. go", 2 / 3),
        ("猫在家猫在家猫在家", 3 / 6),  # six runs of four characters, three of them new
    ],
)
def test_repetition_is_the_share_of_four_word_runs_that_were_there_before(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("prompt", "answer", "same"),
    [
        ("What is two plus two?", "It is four.", True),
        ("What is two plus two?", "Это четыре.", False),
        ("Say four in Russian.", "четыре", True),
        ("Translate to Japanese: good morning", "おはようございます", True),
        ("How does one say “спасибо” in English?", "Thank you.", True),
        ("Wie heißt das auf Russisch?", "Das heißt спасибо.", True),
        ("Что такое любовь?", "Love is a feeling.", False),
        ("Переведи на английский: любовь", "Love", True),
        ("Напиши функцию сложения", "```\ndef add(a, b): return a + b\n```", True),
        ("Напиши функцию сложения", "Вот она: `add`.", True),
        ("你好吗?", "Fine.", False),
        ("翻译成英文:你好", "Hello", True),
        ("日本語で書いて", "かな", True),
        ("2 + 2 = ?", "четыре", True),
        ("What is two plus two?", "4", True),
        ("What is the micro sign?", "µ", True),
        ("Что это?", "", True),
    ],
)
def test_an_answer_in_another_script_than_its_prompt_is_seen_unless_it_was_asked_for(
    prompt: str, answer: str, same: bool
) -> None:
    assert same_script(prompt, answer) is same
