"""Held out means held out: what leaves its own data set, what refuses a run, and what is said of it."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import constants

from training import leak_guard
from training.commits import Commits
from training.data.examples import Example
from training.data.held_out import held_out_set
from training.data.sources import Part, joined, load_examples, load_pairs
from training.errors import DataError
from training.journal import Journal, Record, read_lines
from training.leak_guard import without_held_out
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile

QUESTIONS = [
    "What is the capital of France?",
    "Write a poem about the sea.",
    "How do I boil an egg?",
    "Why is the sky blue?",
]
REWORDED = "Tell me which city is France's capital."
OTHER = ["What is the capital of Spain?", "Write a poem about the moon.", "How do I fry an egg?", "Why is snow white?"]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def chat(*turns: str | dict[str, str]) -> dict[str, Any]:
    """A user's turn and an answer, and so on; a single question is answered."""
    roles = (user, assistant)
    messages = [turn if isinstance(turn, dict) else roles[i % 2](turn) for i, turn in enumerate(turns)]
    return {"messages": messages if messages[-1]["role"] == "assistant" else [*messages, assistant("Yes.")]}


def pair(prompt: str | list[dict[str, str]]) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": "Yes.", "rejected": "No."}


class Lab:
    """An experiment whose held-out prompts are drawn, and runs whose data are then looked through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = RunDir(folder / "run")
        self.run_dir.create()
        self.inputs: dict[str, ResolvedInput] = {}
        self.wanted = HeldOut(dataset="data:held@1", path=str(folder / "held_out.jsonl"))

    def data(self, reference: str, *rows: dict[str, Any]) -> str:
        """Write a data set, anew where it is there."""
        path = self.folder / (reference.partition(":")[2].replace("?", "-").replace("/", "-") + ".jsonl")
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        self.inputs[reference] = ResolvedInput(reference=reference, path=str(path))
        return reference

    def hold_out(self, reference: str, *rows: dict[str, Any], **settings: Any) -> str:
        """Draw all prompts of a data set, which the test then writes anew, or leaves."""
        self.wanted = HeldOut(dataset=self.data(reference, *rows), path=self.wanted.path, **settings)
        held_out_set(self.run(), self.run_dir, Journal(self.folder / "drawing.jsonl", 1))
        return reference

    def run(self, embedder: str = "") -> RunFile:
        return RunFile(
            run_id=1, name="a", experiment="e", stage="sft", attempt=1, config={}, inputs=self.inputs,
            held_out=self.wanted, embedder=embedder,
        )  # fmt: skip

    def guard(self, *references: str, pairs: bool = False, embedder: str = "") -> list[str]:
        """What the rows ask that are left, the first message of each."""
        run, journal = self.run(embedder), Journal(self.run_dir.journal, 1)
        try:
            held_out = held_out_set(run, self.run_dir, journal)
            assert held_out is not None
            load: Any = load_pairs if pairs else load_examples
            parts = load(list(references), self.inputs, journal, Commits(self.run_dir.commits))
            left = without_held_out(parts, held_out, run, self.run_dir, journal)
            assert all(len(part.rows) == len(part.numbers) for part in left)
            return [row.contents()[0] for row in joined(left)]
        finally:
            journal.close()

    def records(self, kind: str) -> list[Record]:
        lines = read_lines(self.run_dir.journal, 0).lines
        return [line for line in lines if isinstance(line, Record) and line.kind == kind]

    def logged(self, level: str = "") -> str:
        told = [line.body for line in self.records("log")]
        return "\n".join(body["message"] for body in told if level in ("", body["level"]))

    def counted(self) -> list[tuple[str, int, int]]:
        """Of each file: its reference, how many equal rows were taken out, and how many nearly equal ones."""
        told = [line.body for line in self.records("artifact") if line.body["name"] == "held-out rows taken out"]
        return [(body["path"], body["facts"]["equal"], body["facts"]["nearly"]) for body in told]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def refusal(lab: Lab, *references: str, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        lab.guard(*references, **how)
    assert caught.value.failure.field == "dataset"
    return f"{caught.value} {caught.value.failure.hint}"


# In the data set that they come from


def test_held_out_prompts_leave_their_own_data_set_counted_as_two_numbers(lab: Lab) -> None:
    source = lab.hold_out("data:chats@2", *map(chat, QUESTIONS))
    rows = [chat(QUESTIONS[0]), chat(OTHER[0]), chat("WHAT is the capital of France"), chat(REWORDED), chat(OTHER[1])]
    lab.data(source, *rows)
    assert lab.guard(source) == [OTHER[0], OTHER[1]]
    assert lab.counted() == [("data:chats@2", 2, 1)]
    assert (
        "data:chats@2: 2 rows were taken out, since their prompt is held out (rows 1, 3); and 1 that asks the same as "
        "a held-out one (row 4)." in lab.logged()
    )


def test_prompts_of_the_same_pattern_stay(lab: Lab) -> None:
    source = lab.hold_out("data:pairs@1", *map(pair, QUESTIONS))
    lab.data(source, *map(pair, OTHER))
    assert lab.guard(source, pairs=True) == OTHER
    assert lab.counted() == [("data:pairs@1", 0, 0)]
    assert "none of its 4 rows has a held-out prompt, nor asks the same in other words." in lab.logged()


def test_its_own_data_set_is_known_however_many_rows_either_takes(lab: Lab, tmp_path: Path) -> None:
    source = lab.hold_out("path:all.jsonl", *map(chat, QUESTIONS))
    lab.data(source, chat(QUESTIONS[0]), chat(OTHER[0]))
    path = lab.inputs[source].path
    lab.inputs["path:all.jsonl?rows=1000"] = ResolvedInput(reference="path:all.jsonl?rows=1000", path=path)
    lab.inputs["path:./all.jsonl"] = ResolvedInput(reference="path:./all.jsonl", path=path)
    assert lab.guard("path:all.jsonl?rows=1000", "path:./all.jsonl") == [OTHER[0], OTHER[0]]


def test_a_file_of_the_folder_that_they_come_from_is_their_own_data_set(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    lab.wanted = HeldOut(dataset="path:several", path=lab.wanted.path)
    (folder / "1.jsonl").write_bytes(orjson.dumps(chat(QUESTIONS[0])))
    lab.inputs["path:several"] = ResolvedInput(reference="path:several", path=str(folder))
    lab.inputs["path:file"] = ResolvedInput(reference="path:file", path=str(folder / "1.jsonl"))
    lab.data("path:more", chat(OTHER[0]))
    assert lab.guard("path:file", "path:more") == [OTHER[0]]


@pytest.mark.parametrize(
    ("source", "reference", "same"),
    [
        ("hf:me/a", "hf:me/a?rows=10", True),
        ("hf:me/a?split=train&rows=5", "hf:me/a", True),
        ("hf:me/a", "hf:me/a@main?config=default", True),
        ("hf:me/a?split=test", "hf:me/a", False),
        ("hf:me/a?config=x", "hf:me/a", False),
        ("hf:me/a@v1", "hf:me/a@v2", False),
        ("hf:me/a", "hf:me/b", False),
        ("data:a@1", "data:a@1", True),
        ("data:a@1", "data:a@2", False),
        ("data:a@1", "run:a", False),
    ],
)
def test_a_data_set_is_its_own_by_kind_name_version_config_and_split(source: str, reference: str, same: bool) -> None:
    part = Part[Example](reference, reference, None, [], array("q"))
    assert leak_guard._same_set(HeldOut(dataset=source, path="x"), part, {}) is same


def test_where_nothing_is_left_the_run_is_refused(lab: Lab) -> None:
    source = lab.hold_out("data:chats@1", *map(chat, QUESTIONS))
    assert "Nothing is left of data:chats@1: all prompts are held out." in refusal(lab, source)


# In any other data set


def test_all_three_of_three_held_out_prompts_in_another_set_are_named_one_of_them_reworded(lab: Lab) -> None:
    lab.hold_out("data:held@1", *({"prompt_id": f"q{i}", "prompt": text} for i, text in enumerate(QUESTIONS[:3])))
    train = lab.data("data:train@7", chat(OTHER[0]), chat(QUESTIONS[1]), chat(REWORDED), chat("How do I boil an egg"))
    said = refusal(lab, train)
    assert said.startswith("3 of the held-out prompts are in data:train@7 too: ")
    assert "“Write a poem about the sea.” (q1) in row 2 of data:train@7, equal" in said
    assert "“What is the capital of France?” (q0) in row 3 of data:train@7, where “" in said
    assert "” asks the same (0.93)" in said
    assert "“How do I boil an egg?” (q2) in row 4 of data:train@7, equal" in said
    assert "Leave these rows out" in said and "raise held_out.similarity" in said
    assert lab.counted() == []


def test_one_that_asks_for_something_else_passes(lab: Lab) -> None:
    lab.hold_out("data:held@1", *map(chat, QUESTIONS))
    assert lab.guard(lab.data("data:train@1", *map(chat, OTHER))) == OTHER


def test_a_refusal_lists_a_prompt_once_with_its_rows_and_no_more_than_twenty(lab: Lab) -> None:
    prompts = [f"Tell me all about the number {i}, please, in {i} words." for i in range(25)]
    lab.hold_out("data:held@1", *({"prompt_id": f"q{i:02}", "prompt": text} for i, text in enumerate(prompts)))
    said = refusal(lab, lab.data("data:train@1", *(chat(text) for text in prompts for _ in range(8))))
    assert said.startswith("25 of the held-out prompts are in data:train@1 too: ")
    assert "(q00) in rows 1, 2, 3, 4, 5 and 3 more of data:train@1, equal" in said
    assert said.count("equal") == 20 and "; and 5 more." in said
    assert "similarity" not in said


def test_every_data_set_is_looked_through_and_named_with_its_file(lab: Lab, tmp_path: Path) -> None:
    source = lab.hold_out("data:held@1", *map(chat, QUESTIONS))
    lab.data(source, *map(chat, [*QUESTIONS, *OTHER]))
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "1.jsonl").write_bytes(orjson.dumps(chat("Hello?")))
    (folder / "2.jsonl").write_bytes(orjson.dumps(chat("Hello?")) + b"\n" + orjson.dumps(chat(QUESTIONS[2])))
    lab.inputs["path:many"] = ResolvedInput(reference="path:many", path=str(folder))
    said = refusal(lab, source, "path:many")
    assert said.startswith("1 of the held-out prompts is in path:many too: ")
    assert "in row 2 of path:many, 2.jsonl, equal" in said


def test_rows_keep_the_numbers_that_they_have_in_their_file(lab: Lab) -> None:
    lab.hold_out("data:held@1", *map(chat, QUESTIONS))
    flawed = {"prompt": "Hm?", "chosen": "Same.", "rejected": "Same."}
    said = refusal(lab, lab.data("data:train@1", flawed, flawed, pair(OTHER[0]), pair(QUESTIONS[0])), pairs=True)
    assert "in row 4 of data:train@1, equal" in said


# Where in a row a held-out prompt stands


def test_a_chat_whose_later_question_is_a_held_out_prompt_has_it(lab: Lab) -> None:
    source = lab.hold_out("data:held@1", *map(chat, QUESTIONS))
    lab.data(source, chat("Hello!", "Hi.", QUESTIONS[0], "Paris."), chat("Hello!", "Hi.", OTHER[0], "Madrid."))
    assert lab.guard(source) == ["Hello!"]
    assert lab.counted() == [(source, 1, 0)]


def test_a_pair_whose_earlier_question_is_a_held_out_prompt_has_it(lab: Lab) -> None:
    source = lab.hold_out("data:held@1", *map(pair, QUESTIONS))
    talk = [user(QUESTIONS[0]), assistant("Paris."), user("And of Spain?")]
    lab.data(source, pair(talk), pair([user("Hello!"), *talk[1:]]))
    assert lab.guard(source, pairs=True) == ["Hello!"]


def test_a_chat_that_goes_on_behind_a_held_out_talk_has_it(lab: Lab) -> None:
    talk = [user("Hello!"), assistant("Hi."), user("And now?")]
    source = lab.hold_out("data:held@1", {"prompt_id": "t", "prompt": talk})
    longer = chat("Hello", "Hi!", "And now?", "Work.", "And then?", "Sleep.")
    other = chat("Hello", "Good day!", "And now?", "Work.")
    train = lab.data("data:train@1", other, longer)
    assert "(t) in row 2 of data:train@1, equal" in refusal(lab, train)
    lab.data("data:train@1", other)
    assert lab.guard(train) == ["Hello"] and source == "data:held@1"


def test_two_different_system_prompts_make_two_questions(lab: Lab) -> None:
    rewrite, correct = system("Rewrite the text."), system("Correct the text.")
    text = "the sun shone and we all went to the beach"
    source = lab.hold_out("data:held@1", {"prompt_id": "s", "prompt": [rewrite, user(text)]})
    rows = [[rewrite, user(text)], [correct, user(text)], [user(text)], [correct, user(f"{text} yesterday")]]
    lab.data(source, *({"messages": [*row, assistant("Yes.")]} for row in rows))
    assert lab.guard(source) == ["Correct the text.", "Correct the text."]
    assert lab.counted() == [(source, 2, 0)]


def test_a_plain_text_in_which_a_long_held_out_prompt_stands_has_it(lab: Lab) -> None:
    long = "Write a story about a lighthouse keeper who finds a bottle."
    source = lab.hold_out("data:held@1", chat(long), chat(QUESTIONS[3]))
    texts = [
        f"Forum. Question: “{long}” Answer: Once upon a time.",
        "Write a story about a lighthouse keeper who finds a shoe.",
        f"He asked: {QUESTIONS[3]}",  # of four words: too short to be more than chance
    ]
    train = lab.data("data:train@1", *({"text": text} for text in texts))
    said = refusal(lab, train)
    assert "in row 1 of data:train@1, equal" in said and said.startswith("1 of the held-out prompts is")
    lab.data("data:train@1", *({"text": text} for text in texts[1:]))
    assert lab.guard(train) == texts[1:] and source


# Without embeddings


def test_a_similarity_of_one_looks_for_equal_prompts_alone_and_loads_no_embedder(lab: Lab) -> None:
    lab.hold_out("data:held@1", *map(chat, QUESTIONS), similarity=1.0)
    train = lab.data("data:train@1", chat(REWORDED))
    assert lab.guard(train, embedder="path:/no/such/model") == [REWORDED]
    assert "none of its 1 rows has a held-out prompt." in lab.logged()


def test_without_an_embedder_all_but_equal_prompts_are_found_and_a_warning_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    long = "Explain the difference between supervised and unsupervised learning with an example."
    source = lab.hold_out("data:held@1", chat(long), chat(QUESTIONS[0]))
    lab.data(source, chat(long.replace("an example", "examples")), chat(REWORDED))
    assert lab.guard(source, embedder="hf:me/embedder") == [REWORDED]
    assert lab.counted() == [(source, 0, 1)]
    assert "Rewordings of held-out prompts were not looked for, only equal and all but equal ones" in lab.logged(
        "warning"
    )
