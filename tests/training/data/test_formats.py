"""Data files: what is in them, and one sentence for each way to get them wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import STAGES
from training.data.examples import Example, Pair, pair_flaw
from training.data.formats import check_kind, read_rows, scan
from training.data.lines import MAX_ROW, BadRow, RowError, numbered_lines, parse_row
from training.data.rows import as_example, as_pair
from training.errors import DataError

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}
NO = {"role": "assistant", "content": "No."}
CHAT = {"messages": [USER, ANSWER]}


def pair(prompt: list[Any], chosen: list[Any], rejected: list[Any]) -> Pair:
    return Pair(prompt, chosen, rejected)


def write(tmp_path: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    """A file of these rows; bytes are written as they are, all else as JSON."""
    path = tmp_path / name
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows) + b"\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(path)
    assert caught.value.failure.hint and caught.value.failure.code == "data"
    return f"{caught.value.failure.message} {caught.value.failure.hint}"


def test_a_chat_file_is_counted(tmp_path: Path) -> None:
    longer = {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER, USER, ANSWER], "source": "x"}
    path = write(tmp_path, CHAT, b"", longer, CHAT)
    facts = scan(path)
    assert facts.kind == "chat" and facts.rows == 3 and facts.turns == 9
    assert facts.roles == {"user": 4, "assistant": 4, "system": 1}
    assert facts.characters == 4 * 8 + 9 and facts.longest == 25 and facts.longest_line == 3
    assert facts.duplicates == 1 and facts.empty == 0
    assert facts.bytes == path.stat().st_size and facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_texts_are_counted_and_empty_ones_told(tmp_path: Path) -> None:
    facts = scan(write(tmp_path, {"text": "Once."}, {"text": " "}, {"text": ""}))
    assert facts.kind == "text" and facts.rows == 3 and facts.empty == 2 and facts.turns == 0


def test_prompts_are_counted(tmp_path: Path) -> None:
    row = {"prompt_id": "a", "prompt": "Hi", "category": "greeting", "reference": None}
    facts = scan(write(tmp_path, row, {"prompt_id": 2, "prompt": [USER]}))
    assert facts.kind == "prompts" and facts.rows == 2 and facts.roles == {"user": 2}


PREFERENCES = {
    "texts": {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."},
    "messages and texts": {"prompt": [USER], "chosen": "Hello.", "rejected": "No."},
    "messages": {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No."}]},
    "the prompt repeated": {
        "prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No."}],
        "messages": [USER, ANSWER],
    },
    "no prompt field": {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No."}]},
}  # fmt: skip


@pytest.mark.parametrize("form", PREFERENCES)
def test_every_form_of_a_preference_has_the_same_parts(tmp_path: Path, form: str) -> None:
    row = PREFERENCES[form]
    assert as_pair(row) == pair([USER], [ANSWER], [NO])
    assert scan(write(tmp_path, row)).kind == "preference"


def test_equal_answers_keep_the_answer_out_of_the_prompt() -> None:
    same = {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}
    assert as_pair(same) == pair([USER], [ANSWER], [ANSWER])


def test_answers_of_several_turns_begin_where_they_part() -> None:
    row = {"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, ANSWER, USER, NO]}
    assert as_pair(row) == pair([USER, ANSWER, USER], [ANSWER], [NO])
    longer = {"prompt": [USER], "chosen": [ANSWER, USER, ANSWER], "rejected": [NO]}
    assert as_pair(longer) == pair([USER], [ANSWER, USER, ANSWER], [NO])


def test_messages_of_a_pair_lose_all_fields_but_role_and_content() -> None:
    row = {"prompt": [{**USER, "id": 1}], "chosen": [{**ANSWER, "score": 5.0}], "rejected": "No."}
    assert as_pair(row) == pair([USER], [ANSWER], [NO])


SYSTEM = {"role": "system", "content": "Be brief."}
OTHER = {"role": "user", "content": "Ho"}
CHATS = {"chosen": [SYSTEM, USER, ANSWER, OTHER, ANSWER], "rejected": [SYSTEM, USER, ANSWER, OTHER, NO]}


@pytest.mark.parametrize("prompt", ["Hi", " Hi\n", "Ho", [OTHER], [SYSTEM], [SYSTEM, USER], CHATS["chosen"][:4], None])
def test_a_prompt_that_stands_in_the_beginning_of_both_answers_is_that_beginning(prompt: Any) -> None:
    assert as_pair({**CHATS, "prompt": prompt}) == pair([SYSTEM, USER, ANSWER, OTHER], [ANSWER], [NO])


FLAWED: dict[str, tuple[dict[str, Any], str]] = {
    "equal": ({"prompt": "Hi", "chosen": "Hello.", "rejected": " Hello.\n"}, "equal"),
    "equal chats": ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "equal"),
    "empty": ({"prompt": "Hi", "chosen": "Hello.", "rejected": ""}, "empty"),
    "empty turn": ({"chosen": [USER, {"role": "assistant", "content": " "}], "rejected": [USER, ANSWER]}, "empty"),
    "both empty": ({"prompt": "Hi", "chosen": "", "rejected": ""}, "empty"),
    "chats of other questions": ({"chosen": [USER, ANSWER], "rejected": [OTHER, NO]}, "prompts differ"),
    "one of another question than the prompt": ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [OTHER, NO]}, "prompts differ"),
    "both of another question than the prompt": ({"prompt": "Hey", "chosen": [USER, ANSWER], "rejected": [USER, NO]}, "prompts differ"),
    "another beginning than the prompt": ({"prompt": [SYSTEM, USER], "chosen": [USER, ANSWER], "rejected": [USER, NO]}, "prompts differ"),
    "a later question differs": ({"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, ANSWER, OTHER, NO]}, "prompts differ"),
    "system prompts differ": ({"chosen": [SYSTEM, USER, ANSWER], "rejected": [USER, NO]}, "prompts differ"),
    "one whole chat beside an answer": ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": "No."}, "prompts differ"),
}  # fmt: skip


@pytest.mark.parametrize("case", FLAWED)
def test_a_pair_with_nothing_to_learn_is_counted_and_no_error(tmp_path: Path, case: str) -> None:
    row, flaw = FLAWED[case]
    facts = scan(write(tmp_path, PREFERENCES["texts"], b"", row, PREFERENCES["texts"], row))
    assert facts.kind == "preference" and facts.rows == 4
    assert facts.flaws == {flaw: {"count": 2, "line": 3}}
    assert pair_flaw(as_pair(row)) == flaw


def test_flaws_are_counted_each_on_its_own(tmp_path: Path) -> None:
    rows = [FLAWED["empty"][0], FLAWED["equal"][0], FLAWED["empty turn"][0]]
    assert scan(write(tmp_path, *rows, *PREFERENCES.values())).flaws == {
        "empty": {"count": 2, "line": 1},
        "equal": {"count": 1, "line": 2},
    }
    assert scan(write(tmp_path, CHAT)).flaws == {}


def test_the_first_rows_alone_can_be_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, CHAT, CHAT, b"broken")
    assert scan(path, rows=2).rows == 2
    with pytest.raises(BadRow):
        scan(path, rows=3)


@pytest.mark.parametrize(
    ("stage", "kind", "words"),
    [
        ("sft", "preference", "mine holds preferences; this stage trains on chats or texts."),
        ("dpo", "chat", "mine holds chats; this stage trains on preferences."),
        ("reward", "prompts", "mine holds prompts; this stage trains on preferences."),
    ],
)
def test_a_stage_refuses_data_of_another_kind(stage: str, kind: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        check_kind("mine", kind, stage)
    assert caught.value.failure.message == words and caught.value.failure.hint.startswith("Choose a data set of {")
    for right in STAGES[stage].takes:
        check_kind("mine", right, stage)  # type: ignore[arg-type]


def test_a_row_of_another_kind_is_refused_in_the_same_words() -> None:
    with pytest.raises(RowError, match="the row is one of the chats; this stage trains on preferences"):
        as_pair(CHAT)
    with pytest.raises(RowError, match="the row is one of the preferences; this stage trains on chats or texts"):
        as_example(PREFERENCES["texts"])


def test_examples_are_read_in_order_and_up_to_a_number(tmp_path: Path) -> None:
    path = write(tmp_path, CHAT, b"", {"text": "Once."}, b"broken")
    first, second = Example(messages=[USER, ANSWER]), Example(text="Once.")  # type: ignore[list-item]
    assert list(read_rows(path, as_example, 2)) == [(1, first), (3, second)]
    with pytest.raises(BadRow, match=r"Line 4 of data.jsonl: this is not valid JSON"):
        list(read_rows(path, as_example))


def test_fields_beside_role_and_content_are_left_out() -> None:
    assert as_example({"messages": [USER, {**ANSWER, "weight": 1}]}).messages == [USER, ANSWER]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + orjson.dumps(CHAT) + b"\r", orjson.dumps(CHAT) + b"\r")
    assert scan(path).rows == 2


def test_a_last_line_without_line_break_counts(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(orjson.dumps(CHAT) + b"\n" + orjson.dumps(CHAT))
    assert scan(path).rows == 2


def test_a_broken_line_1234_in_100000_is_named(tmp_path: Path) -> None:
    line = orjson.dumps(CHAT) + b"\n"
    path = tmp_path / "chats.jsonl"
    path.write_bytes(line * 1233 + b'{"messages": [{"role": "user", \n' + line * 98766)
    with pytest.raises(BadRow) as caught:
        scan(path)
    assert caught.value.line == 1234
    assert str(caught.value).startswith("Line 1,234 of chats.jsonl: this is not valid JSON: ")


def test_the_first_twenty_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, CHAT, *[{"messages": []}] * 30)
    with pytest.raises(BadRow) as caught:
        scan(path)
    assert [problem.line for problem in caught.value.problems] == list(range(2, 22)) and caught.value.more
    assert caught.value.problems[0].sentence == "Line 2: “messages” is an empty list."
    assert "(at least 19 more bad lines)" in str(caught.value)


def test_few_bad_lines_are_told_exactly(tmp_path: Path) -> None:
    with pytest.raises(BadRow) as caught:
        scan(write(tmp_path, b"{", CHAT, b"[]", CHAT, b"1"))
    assert [problem.line for problem in caught.value.problems] == [1, 3, 5] and not caught.value.more


PARQUET = "pandas.read_parquet"
FILES = {
    "empty": (b"", "data.jsonl is empty"),
    "blank lines": (b"\n \n\t\n", "holds only blank lines"),
    "byte order mark alone": (b"\xef\xbb\xbf", "holds only blank lines"),
    "CSV": (b"question,answer\nWhat?,That.\n", "is CSV (columns: question, answer)"),
    "quoted CSV": (b'"id","text"\n1,"a ""b"""\n', "is CSV (columns: id, text)"),
    "semicolons": (b"id;text\n1;a\n", "is CSV (columns: id, text)"),
    "TSV": (b"question\tanswer\nWhat?\tThat.\n", "is TSV (columns: question, answer)"),
    "plain text": (b"It was a dark night.\nIt rained.\n", "is plain text"),
    "Parquet": (b"PAR1\x15\x04\x15" + bytes(50), PARQUET),
    "ZIP": (b"PK\x03\x04" + bytes(50), "unzip FILE"),
    "gzip": (gzip.compress(orjson.dumps(CHAT)), "gunzip FILE"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(50), "unzstd FILE"),
    "pickle": (b"\x80\x04\x95" + bytes(50), "is a pickle"),
    "SQLite": (b"SQLite format 3\0" + bytes(50), "is an SQLite database"),
    "JSON array": (orjson.dumps([CHAT, CHAT]), "is one big JSON array, not JSON Lines. Write one object a line: `jq -c '.[]'"),
    "pretty JSON array": (json.dumps([CHAT], indent=2).encode(), "is one big JSON array"),
    "pretty JSON object": (json.dumps(CHAT, indent=2).encode(), "the object goes over several lines"),
    "UTF-16 with mark": (json.dumps(CHAT).encode("utf-16"), "is text in UTF-16"),
    "UTF-16 without mark": (json.dumps(CHAT).encode("utf-16-le"), "is text in UTF-16"),
    "UTF-16 the other way": (json.dumps(CHAT).encode("utf-16-be"), "is text in UTF-16"),
    "only pairs with nothing to learn": (
        b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n{"prompt": "a", "chosen": "b", "rejected": ""}\n',
        "holds only pairs with nothing to learn (equal, empty)",
    ),
    "only empty texts": (b'{"text": ""}\n{"text": "  "}\n', "holds only empty texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, case: str) -> None:
    content, words = FILES[case]
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert words in refusal(path)


ROWS: dict[str, tuple[Any, str]] = {
    "Latin-1": ('{"text": "café"}'.encode("latin-1"), "byte 14 is not UTF-8. The file is probably in Latin-1"),
    "cut off": (b'{"text": "a', "this is not valid JSON"),
    "line break in a text": (b'{"text": "a\tb"}', "control character"),
    "NaN": (b'{"text": NaN}', "holds NaN or Infinity"),
    "half a surrogate": (b'{"text": "\\ud83d"}', "half of a surrogate pair"),
    "NUL byte": (b'{"text": "a\0b"}', "holds NUL bytes"),
    "NUL bytes outside": (b"{\0\0}", "NUL bytes"),
    "escaped NUL": (b'{"text": "a\\u0000b"}', "“text” holds a NUL character"),
    "NUL in a message": ({"messages": [USER, {"role": "assistant", "content": "a\0"}]}, "“messages[1].content” holds a NUL"),
    "depth bomb": (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the row is nested too deeply"),
    "array": ([1, 2], "the row is an array, not an object"),
    "text": ("hello", "the row is a text, not an object"),
    "number": (12, "the row is a number, not an object"),
    "null": (b"null", "the row is null, not an object"),
    "no keys": ({}, "the row is in no known form (keys: none)"),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "Hi"}]}, "ShareGPT form"),
    "Alpaca": ({"instruction": "Say hi", "input": "", "output": "Hi"}, "Alpaca form"),
    "completion": ({"prompt": "Hi", "completion": "Hello"}, "content: .completion"),
    "question": ({"question": "Hi", "answer": "Hello"}, "content: .question"),
    "single message": (USER, "the row is a single message"),
    "verdict": ({"prompt_id": "a", "model_a": "x", "model_b": "y", "preference": 1}, "preflab import verdicts"),
    "response": ({"prompt_id": "a", "model": "x", "prompt": "Hi", "response": "Hello"}, "preflab import responses"),
    "prompt alone": ({"prompt": "Hi"}, "no answer and no “prompt_id”"),
    "content alone": ({"content": "Once."}, "{text: .content}"),
    "text is a number": ({"text": 3}, "“text” is a number, not a text"),
    "messages is a text": ({"messages": "[]"}, "“messages” is a text, not a list of messages"),
    "no messages": ({"messages": []}, "“messages” is an empty list"),
    "message is a text": ({"messages": ["Hi"]}, "“messages”[0] is a text, not an object"),
    "no role": ({"messages": [{"content": "Hi"}]}, "“messages”[0] has no role"),
    "from and value": ({"messages": [{"from": "human", "value": "Hi"}]}, "has “from” and “value”"),
    "role unknown": ({"messages": [{"role": "human", "content": "Hi"}]}, "the role of “messages”[0] is “human”. The roles are system, user, assistant and tool. Write “user”."),
    "role in capitals": ({"messages": [{"role": "User", "content": "Hi"}]}, "Write “user”."),
    "role is a list": ({"messages": [{"role": [], "content": "Hi"}]}, "is a list, not a text"),
    "content missing": ({"messages": [USER, {"role": "assistant"}]}, "“messages[1].content” is null or missing"),
    "content is parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "“messages[0].content” is a list"),
    "tool calls": ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "calls tools"),
    "no answer": ({"messages": [USER]}, "no assistant turn, so there is nothing to learn"),
    "empty answer": ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "only empty assistant turns"),
    "preference without prompt": ({"chosen": "a", "rejected": "b"}, "the row has no prompt"),
    "preference without rejected": ({"prompt": "Hi", "chosen": "a"}, "the row has no “rejected”"),
    "preference with a number": ({"prompt": "Hi", "chosen": 1, "rejected": "b"}, "“chosen” is a number"),
    "preference that ends with the user": ({"chosen": [USER, USER], "rejected": [USER, ANSWER]}, "“chosen” does not answer"),
    "prompt that is answered": ({"prompt_id": "a", "prompt": [USER, ANSWER]}, "“prompt” ends with an assistant turn"),
    "empty prompt": ({"prompt_id": "a", "prompt": " "}, "“prompt” is empty"),
    "id without a letter": ({"prompt_id": " ", "prompt": "Hi"}, "“prompt_id” is empty"),
    "id too long": ({"prompt_id": "x" * 201, "prompt": "Hi"}, "“prompt_id” has 201 characters; 200 are the most"),
    "id of two lines": ({"prompt_id": "a\nb", "prompt": "Hi"}, "“prompt_id” holds a line break"),
    "id with a NUL": ({"prompt_id": "a\0", "prompt": "Hi"}, "“prompt_id” holds a NUL character"),
    "category too long": ({"prompt_id": "a", "prompt": "Hi", "category": "x" * 201}, "“category” has 201 characters"),
    "category of two lines": ({"prompt_id": "a", "prompt": "Hi", "category": "a\nb"}, "“category” holds a line break"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_is_named_with_its_line_and_what_to_do(tmp_path: Path, case: str) -> None:
    row, words = ROWS[case]
    said = refusal(write(tmp_path, CHAT, row))
    assert said.startswith("Line 2 of data.jsonl: ") and words in said


def test_the_advice_for_sharegpt_and_alpaca_converts_their_rows(tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    rows = [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        {"instruction": "Hi", "input": "", "output": "Hello."},
        {"prompt": "Hi", "completion": "Hello."},
    ]
    for row in rows:
        path = write(tmp_path, row)
        command = refusal(path).split("`")[1].replace("FILE > NEW", str(path))
        converted = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
        assert orjson.loads(converted) == CHAT


def test_kinds_may_not_be_mixed(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, CHAT, {"text": "Once."}))
    assert "Line 2 of data.jsonl: the row is one of the texts, while line 1 is one of the chats" in said


def test_a_line_up_to_16_mib_is_read_and_a_longer_one_is_named(tmp_path: Path) -> None:
    fits = b'{"text": "' + b"a" * (MAX_ROW - 12) + b'"}'
    assert len(fits) == MAX_ROW
    assert scan(write(tmp_path, {"text": "a"}, fits, {"text": "b"})).longest_line == 2
    said = refusal(write(tmp_path, {"text": "a"}, fits[:-2] + b'aaaa"}', {"text": "b"}))
    assert "Line 2 of data.jsonl: the row is longer than 16 MiB" in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "nothing.jsonl")
    assert "could not be read" in refusal(tmp_path)


def test_progress_ends_at_the_whole_file(tmp_path: Path) -> None:
    path, seen = write(tmp_path, *[CHAT] * 10), []
    scan(path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_name_given_is_the_name_in_messages(tmp_path: Path) -> None:
    with pytest.raises(BadRow, match=r"Line 1 of mine\.jsonl"):
        scan(write(tmp_path, b"{}", name="upload-1.part"), name="mine.jsonl")


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        for _ in range(10):
            file.write((orjson.dumps({"text": "word " * 2000}) + b"\n") * 800)
        file.write(b"x" * (60 << 20))
    code = (
        "import sys, resource; from pathlib import Path; from training.data.formats import scan\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: scan(Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    output = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    message, grown = output.splitlines()
    assert "Line 8,001 of large.jsonl: the row is longer than 16 MiB" in message
    assert int(grown) < 100 << 10  # KiB


def test_reading_data_files_needs_no_torch() -> None:
    code = (
        "import sys, training.data.formats; sys.exit(bool({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["messages", "role", "content", "text", "prompt", "chosen", "rejected", "prompt_id"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_row_is_read_or_refused_in_a_sentence(value: Any) -> None:
    try:
        example = as_example(parse_row(orjson.dumps(value)))
    except (RowError, TypeError) as error:
        assert isinstance(error, RowError) or "Integer exceeds" in str(error) or "surrogates" in str(error)
        return
    assert (example.messages is None) != (example.text is None)


@settings(max_examples=300, deadline=None)
@given(json_values, json_values, json_values)
def test_any_preference_is_read_or_refused_in_a_sentence(prompt: Any, chosen: Any, rejected: Any) -> None:
    try:
        found = as_pair({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    except RowError as error:
        assert error.message.endswith(".") and error.hint
        return
    assert found.chosen and found.rejected and (found.prompt or pair_flaw(found) == "prompts differ")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError):
        scan(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=20))
def test_lines_are_numbered_as_an_editor_numbers_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(b"\n".join([b"{}", *lines]))
    expected = [(number, line) for number, line in enumerate([b"{}", *lines], 1) if line.strip()]
    assert list(numbered_lines(path)) == expected
