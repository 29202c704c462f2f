"""Chats for the demo: small tasks whose answers can be checked, the same every time.

A model of under a million parameters learns their form within a minute and much of their content within two.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlmodel import select

from app.datasets.service import import_file
from app.db import Database
from app.models import Dataset, Experiment
from app.settings import Settings

PRESET = "demo"
NAME = "demo-chats"
COUNT = 4000
SEED = 0

OPPOSITES = (
    "hot cold, big small, fast slow, up down, happy sad, light dark, open closed, full empty, hard soft, old new, wet dry, "
    "early late, loud quiet, rich poor, strong weak, tall short, thick thin, near far, clean dirty, brave shy, sweet sour, "
    "left right, high low, first last, day night, buy sell, give take, start stop, true false, sharp dull"
)
OPPOSITE = {
    word: other
    for pair in OPPOSITES.split(", ")
    for word, other in (tuple(pair.split()), tuple(reversed(pair.split())))
}
KINDS = {
    "animal": ["dog", "cat", "horse", "cow", "sheep", "lion", "tiger", "bear", "wolf", "fox"],
    "fruit": ["apple", "pear", "plum", "grape", "lemon", "melon", "peach", "cherry", "mango", "fig"],
    "colour": ["red", "blue", "green", "yellow", "purple", "orange", "black", "white", "grey", "brown"],
    "tool": ["hammer", "saw", "drill", "wrench", "spade", "axe", "knife", "brush", "ladder", "file"],
}
WORDS = sorted(word for words in KINDS.values() for word in words)
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}


@dataclass(frozen=True)
class Task:
    """A question with one right answer."""

    family: str
    prompt: str
    answer: str


def opposite(draw: random.Random) -> Task:
    word = draw.choice(sorted(OPPOSITE))
    question = draw.choice(
        ["What is the opposite of {}?", "Which word means the opposite of {}?", "Name the opposite of {}."]
    )
    return Task("opposite", question.format(word), f"The opposite of {word} is {OPPOSITE[word]}.")


def total(draw: random.Random) -> Task:
    a, b = draw.randint(1, 12), draw.randint(1, 12)
    question = draw.choice(["What is {} plus {}?", "Add {} and {}.", "How much is {} and {}?"])
    return Task("sum", question.format(a, b), f"{a} plus {b} is {a + b}.")


def count(draw: random.Random) -> Task:
    words = draw.sample(WORDS, draw.randint(2, 5))
    question = draw.choice(["How many words are here: {}?", "Count these words: {}."])
    return Task("count", question.format(", ".join(words)), f"There are {len(words)} words.")


def in_order(draw: random.Random) -> Task:
    words = draw.sample(WORDS, draw.randint(2, 3))
    question = draw.choice(["Sort these words: {}.", "Put these words in order: {}."])
    return Task("sort", question.format(", ".join(words)), f"In order: {', '.join(sorted(words))}.")


def backwards(draw: random.Random) -> Task:
    words = draw.sample(WORDS, draw.randint(2, 3))
    question = draw.choice(["Reverse this list: {}.", "Write this list backwards: {}."])
    return Task("reverse", question.format(", ".join(words)), f"Backwards: {', '.join(reversed(words))}.")


def capitals(draw: random.Random) -> Task:
    word = draw.choice([*WORDS, *sorted(OPPOSITE)])
    question = draw.choice(["Write {} in capital letters.", "Spell {} with big letters."])
    return Task("capitals", question.format(word), f"In capital letters: {word.upper()}.")


def kind(draw: random.Random) -> Task:
    word = draw.choice(WORDS)
    question = draw.choice(["What kind of thing is a {}?", "Is {} an animal, a fruit, a colour or a tool?"])
    return Task("kind", question.format(word), f"{word.capitalize()} is a kind of {KIND_OF[word]}.")


FAMILIES: tuple[Callable[[random.Random], Task], ...] = (opposite, total, count, in_order, backwards, capitals, kind)
GREETINGS = ("", "", "Hello! ", "Please help. ", "Quick question. ")


def tasks(number: int = COUNT, seed: int = SEED) -> Iterator[Task]:
    """So many tasks, no prompt twice, the families mixed."""
    draw = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < number:
        task = draw.choice(FAMILIES)(draw)
        prompt = draw.choice(GREETINGS) + task.prompt
        if prompt not in seen:
            seen.add(prompt)
            yield Task(task.family, prompt, task.answer)


def as_row(task: Task) -> dict[str, Any]:
    turns = [{"role": "user", "content": task.prompt}, {"role": "assistant", "content": task.answer}]
    return {"messages": turns, "category": task.family}


def ensure(database: Database, settings: Settings) -> None:
    """The chats as the data set that the preset names. Made again, they are the same version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{NAME}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(as_row(task)) + b"\n" for task in tasks()))
        import_file(database, settings, path, NAME)


def ensure_in_new_home(database: Database, settings: Settings) -> None:
    """Something to try the launch form with, where there is nothing yet. Who deletes it later is rid of it."""
    with database.read() as session:
        is_new = (
            session.exec(select(Experiment.id)).first() is None and session.exec(select(Dataset.id)).first() is None
        )
    if is_new:
        ensure(database, settings)
