"""Answers that runs leave for each other."""

from __future__ import annotations

import hashlib
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
    cache.add({asked("2 + 2?"): ANSWER})
    whole = next(file for file in (tmp_path / "answers").glob("*/*.jsonl") if asked("2 + 2?") in file.read_text())
    content = whole.read_bytes()
    for name, other in {"a": b"\xff\xfe", "b": b'{"key": 1}\n', "c": b"[]\n", "d": content}.items():
        (whole.parent / f"{name}.jsonl").write_bytes(other)
    for place in range(len(content)):  # a wrong letter in an answer is no answer either
        whole.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert cache.read() == {asked("1 + 1?"): ANSWER}
    cache.add({asked("2 + 2?"): ANSWER})
    assert cache.read() == {asked("1 + 1?"): ANSWER, asked("2 + 2?"): ANSWER}
    assert whole.read_bytes() == content


def test_a_file_with_the_right_name_and_other_content_is_left_aside(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, FACTS)
    cache.add({asked("1 + 1?"): ANSWER})
    folder = next((tmp_path / "answers").iterdir())
    for content in (b"[1]\n", b'{"key": "x"}\n', b"{}", b'"key"\n', b'{"key": []}\n'):
        (folder / f"{hashlib.sha256(content).hexdigest()}.jsonl").write_bytes(content)
    assert cache.read() == {asked("1 + 1?"): ANSWER}


def test_what_else_is_known_of_an_answer_is_not_kept_and_nothing_makes_no_file(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, FACTS)
    cache.add({})
    assert not (tmp_path / "answers").exists()
    cache.add({asked("1 + 1?"): {**ANSWER, "cached": True}})
    assert cache.read() == {asked("1 + 1?"): ANSWER}
    assert not [file for file in tmp_path.glob("answers/**/*") if file.stat().st_mode & 0o077], "private to its owner"
