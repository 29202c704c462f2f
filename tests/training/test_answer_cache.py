"""Answers that runs leave for each other."""

from __future__ import annotations

from pathlib import Path

from training.answer_cache import AnswerCache, prompt_key
from training.data.examples import Message

ANSWER = {"response": "Two.", "ended": True, "tokens": 3}
FACTS = {"model": "abc", "temperature": 0.0}


def asked(text: str) -> str:
    return prompt_key([Message(role="user", content=text)])


def test_what_one_run_adds_another_finds(tmp_path: Path) -> None:
    AnswerCache(tmp_path, FACTS).add({asked("1 + 1?"): ANSWER})
    AnswerCache(tmp_path, FACTS).add({asked("2 + 2?"): {**ANSWER, "response": "Four."}})
    found = AnswerCache(tmp_path, dict(reversed(FACTS.items()))).read()
    assert found == {asked("1 + 1?"): ANSWER, asked("2 + 2?"): {**ANSWER, "response": "Four."}}


def test_another_model_or_another_setting_finds_nothing(tmp_path: Path) -> None:
    AnswerCache(tmp_path, FACTS).add({asked("1 + 1?"): ANSWER})
    assert AnswerCache(tmp_path, {**FACTS, "temperature": 0.7}).read() == {}
    assert AnswerCache(tmp_path, {**FACTS, "model": "abd"}).read() == {}


def test_a_space_more_is_another_prompt() -> None:
    assert asked("1 + 1?") != asked("1 + 1? ")


def test_a_damaged_file_counts_as_not_there_and_the_others_are_read(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, FACTS)
    cache.add({asked("1 + 1?"): ANSWER})
    folder = next((tmp_path / "answers").iterdir())
    for name, content in {"a": b"\xff\xfe", "b": b'{"key": 1}\n', "c": b"[]\n", "d": b'{"key": "x", "respo'}.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    assert cache.read() == {asked("1 + 1?"): ANSWER}
