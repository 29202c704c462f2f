"""Files of answers and verdicts come in whole or not at all, and every bad row is named by its line."""

import json
import os
import threading

import pytest
from sqlmodel import select

from app.errors import Conflict, Invalid
from app.models import Experiment, Prompt, Response, Verdict
from app.winrates import exports
from tests.app.winrates.made import answer, answered, count, lines, said, the, verdict
from training.config import parse_config

ALL = (Experiment, Prompt, Response, Verdict)
GOOD = verdict("p", "a", "b", 1)


def raw(row, **fields):
    """A row with some values as they stand in the file."""
    text = json.dumps({**row, **dict.fromkeys(fields, "@")})
    for value in fields.values():
        text = text.replace('"@"', value, 1)
    return text.encode()


def refused(take, content, *lines_named, said=""):
    with pytest.raises(Invalid) as caught:
        take(content)
    assert list(caught.value.fields) == [f"line {number}" for number in lines_named]
    assert caught.value.message.startswith(f"Line {lines_named[0]:,} of ")
    assert said in caught.value.fields[f"line {lines_named[0]}"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (verdict("p", "a", "b", 1.2), "“preference” is 1.2; it is a number from 0 to 1."),
        (verdict("p", "a", "b", -0.1), "“preference” is -0.1; it is a number from 0 to 1."),
        (verdict("p", "a", "b", "0.5"), "“preference” is no finite number. Write a number without quotes."),
        (verdict("p", "a", "b", True), "“preference” is no finite number."),
        (verdict("p", "a", "b", None), "“preference” is missing"),
        (raw(GOOD, preference="NaN"), "NaN or Infinity, which JSON does not know"),
        (raw(GOOD, preference="1e999"), "not valid JSON"),
        ({key: value for key, value in GOOD.items() if key != "preference"}, "“preference” is missing"),
        (verdict("p", "a", "a", 1), "“a” is compared with itself."),
        (verdict("p", "a", "b", 1, judge="gpt-4"), "checker, reward:<name>, llm:<name> or human:<name>"),
        (verdict("p", "a", "b", 1, judge="human"), "human:<name>"),
        (verdict("p", "a", "b", 1, judge="llm:"), "llm:<name>"),
        (verdict("p", "a", "b", 1, judge=7), "“judge” is no text."),
        (verdict("p", "", "b", 1), "“model_a” is empty."),
        (verdict("p", "a", "b\nc", 1), "“model_b” holds a line break"),
        (verdict("p", "a", "b" * 201, 1), "“model_b” has 201 characters; 200 are the most."),
        (verdict("p", "a", "b", 1, score_a="high"), "“score_a” is no finite number."),
        (verdict("p", "a", "b", 1, reason="a\0b"), "NUL"),
        (raw(GOOD, reason='"\\ud83d"'), "half of a surrogate pair"),
        (verdict(True, "a", "b", 1), "“prompt_id” is no text."),
        (b"[1]", "the row is an array, not an object."),
        (b'{"prompt_id": "p"', "not valid JSON"),
        (b'{"reason": "\xe9"}', "not UTF-8"),
    ],
)
def test_a_bad_verdict_is_named_by_its_line_and_nothing_of_the_file_is_taken(bring, bad, sentence):
    refused(bring.verdicts, [GOOD, GOOD, bad, GOOD], 3, said=sentence)
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (answer("q", "a", None), "“response” is missing. Write a text in quotes."),
        (answer("q", "a", 7), "“response” is no text."),
        (answer("q", "a", "x" * 10_000_000), "10,000,000 characters; 1,000,000 are the most."),
        (answer("q", "a", "x\0"), "“response” holds a NUL character"),
        (raw(answer("q", "a"), response='"\\udc00"'), "half of a surrogate pair"),
        (answer("q", ""), "“model” is empty."),
        (answer("", "a"), "“prompt_id” is empty."),
        (answer("q", "a", prompt=[]), "“prompt” is an empty list."),
        (answer("q", "a", prompt=[{"role": "human", "content": "Hi"}]), "“human”"),
        (answer("q", "a", prompt=7), "“prompt” is a number"),
        (answer("q", "a", ended="yes"), "“ended” is not true or false."),
        (answer("q", "a", tokens=-1), "“tokens” is -1."),
        (answer("q", "a", tokens=1.5), "“tokens” is not a whole number."),
        (answer("q", "a", reference=["x"]), "“reference” is no text."),
        (b"null", "the row is null, not an object."),
    ],
)
def test_a_bad_answer_is_named_by_its_line_and_nothing_of_the_file_is_taken(bring, bad, sentence):
    refused(bring.responses, [answer("p", "a"), answer("p", "b"), bad, answer("r", "a")], 3, said=sentence)
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


def test_of_many_bad_lines_the_first_twenty_are_named(bring):
    with pytest.raises(Invalid) as caught:
        bring.verdicts([GOOD, *[verdict("p", "a", "b", 2)] * 100])
    assert list(caught.value.fields) == [f"line {number}" for number in range(2, 22)]
    assert "at least 19 more bad lines" in caught.value.message


def test_a_model_answers_a_prompt_once(bring):
    rows = [answer("p", "a", "one"), answer("p", "b"), answer("p", "a", "one"), answer("p", "b", "other")]
    refused(bring.responses, rows, 3, 4, said="“a” has an answer to the prompt “p” already, in this file.")
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


def test_one_id_is_one_prompt(bring):
    first = [answer("p", "a", prompt="What?"), answer("p", "b", prompt="Why?")]
    refused(bring.responses, first, 2, said="The prompt “p” is another one than before under this id.")
    assert count(bring.database, *ALL) == [0, 0, 0, 0]
    bring.responses(first[:1])
    refused(bring.responses, first[1:], 1, said="another one than before")
    # Nor where a row that does not say what was asked stands before it.
    refused(bring.responses, [answer("p", "c"), answer("p", "b", prompt="Why?")], 2, said="another one than before")
    assert count(bring.database, Prompt, Response) == [1, 1]


def test_a_prompt_that_was_known_by_its_id_alone_is_known_in_full_from_then_on(bring):
    bring.verdicts([verdict("p", "a", "b", 1)])
    bring.responses([answer("p", "a"), answer("p", "b", prompt="What?", category="odd", reference="42")])
    with bring.database.read() as session:
        (found,) = session.exec(select(Prompt)).all()
    assert found.messages == [{"role": "user", "content": "What?"}]
    assert (found.category, found.reference) == ("odd", "42")


def test_where_there_are_answers_a_verdict_is_on_two_of_them(bring):
    bring.responses([answer("p", "a"), answer("p", "b"), answer("q", "a")])
    rows = [
        verdict("p", "a", "b", 1),
        verdict("p", "a", "c", 1),
        verdict("q", "a", "b", 0),
        verdict("r", "a", "b", 0),
        verdict("r", "d", "c", 0),
    ]
    refused(bring.verdicts, rows, 2, 3, 4, 5, said="“c” has no answers in this experiment. Import the answers first")
    with pytest.raises(Invalid) as caught:
        bring.verdicts(rows)
    assert caught.value.fields["line 3"].startswith("“b” has no answer to the prompt “q”.")
    assert caught.value.fields["line 4"].startswith("There is no prompt “r” in this experiment.")
    assert count(bring.database, Prompt, Verdict) == [2, 0]
    assert bring.verdicts(rows[:1]).rows == 1
    # Another prompt set has no answers: there, verdicts make models known.
    assert bring.verdicts(rows, prompts="others").models == 4


def test_an_answer_that_is_there_already_stays_and_another_text_is_refused(bring):
    bring.responses([answer("p", "a", "one"), answer("p", "b", "two")])
    found = bring.responses([answer("p", "a", "one"), answer("p", "b", "two"), answer("p", "c", "three")])
    assert found.rows == 3 and found.notes == ["2 answers were there already, the same."]
    refused(bring.responses, [answer("p", "d"), answer("p", "a", "other")], 2, said="in this experiment, another one.")
    assert count(bring.database, Response) == [3]


def test_a_prompt_that_one_model_alone_answered_is_noted(bring):
    first = bring.responses([answer("p", "a"), answer("q", "a")])
    assert first.notes == []  # there is nobody yet to be compared with
    second = bring.responses([answer("p", "b"), answer("r", "b")])
    assert second.notes == ["1 prompt was answered by one model only, so nothing is compared there: “r” (line 2)."]
    assert count(bring.database, Response) == [4]
    many = bring.responses([*answered(["a", "b"], 1), *(answer(f"s{n}", "a") for n in range(8))], "other")
    assert many.notes[0].startswith("8 prompts were") and many.notes[0].endswith("“s4” (line 7) and 3 more.")


def test_the_same_verdict_file_twice_is_refused_since_its_votes_would_count_double(bring):
    rows = said("a", "b", [1, 0, 1])
    bring.verdicts(rows)
    with pytest.raises(Conflict, match="are in “e” already; twice, they would count double"):
        bring.verdicts(rows)
    assert count(bring.database, Verdict) == [3]
    bring.verdicts(rows, "another")
    bring.verdicts(rows[:2])  # another file
    assert count(bring.database, Verdict) == [8]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "verdicts.jsonl is empty."),
        (b"\n \n", "only blank lines"),
        (b"prompt_id,model_a,model_b\n1,a,b\n", "CSV"),
        (b'[{"prompt_id": "p"}]', "JSON array"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"p\x00r\x00o\x00m\x00p\x00t\x00_\x00i\x00d\x00: \x001\x00", "UTF-16"),
    ],
)
def test_a_file_that_is_something_else_is_said_to_be(bring, content, word):
    for take in (bring.verdicts, bring.responses):
        with pytest.raises(Invalid, match=word.replace("verdicts.jsonl", "jsonl")) as caught:
            take(content)
        assert list(caught.value.fields) == ["file"]
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


def test_a_pipe_and_a_missing_file_are_refused_before_anything_waits_for_them(bring, tmp_path):
    from app.winrates.imports import import_responses, import_verdicts

    os.mkfifo(tmp_path / "pipe")
    for take in (import_responses, import_verdicts):
        for path, word in ((tmp_path / "pipe", "no plain file"), (tmp_path, "plain file"), (tmp_path / "x", "no file")):
            with pytest.raises(Invalid, match=word):
                take(bring.database, path, "e")


def test_texts_stay_as_they_are(bring):
    texts = ["<script>alert(1)</script>", "مرحبا\u202e abc", "  two\r\n lines \n", "", "👩‍👩‍👧 ﷽", "\u2028\ufeff\x7f"]
    rows = [answer(f"p{n}", "مرحبا", text, prompt=text or "?") for n, text in enumerate(texts)]
    bring.responses(rows)
    with bring.database.read() as session:
        found = list(exports.responses(session, the(session), "imported"))
        empty = session.exec(select(Response.empty).order_by(Response.id)).all()
    assert [row["response"] for row in found] == texts and {row["model"] for row in found} == {"مرحبا"}
    assert [row["prompt"][0]["content"] for row in found] == [text or "?" for text in texts]
    assert empty == [False, False, False, True, False, False]


def test_what_is_exported_comes_in_again_unchanged(bring):
    bring.responses(
        [
            answer("p", "a", "one", prompt="What?", category="odd", reference="1", ended=True, tokens=2, checkpoint=50),
            answer("p", "b", "", prompt=[{"role": "user", "content": "What?"}], ended=False, tokens=0),
            answer(7, "a", "three"),
            answer(7, "b", "four"),
        ]
    )
    bring.verdicts(
        [
            verdict("p", "a", "b", 1 / 3, "reward:rm", score_a=0.25, score_b=-1e-300, reason="So."),
            verdict("7", "b", "a", 0.5, "human:anna"),
            verdict("7", "b", "a", 0.5, "human:anna"),
        ]
    )

    def given_out(name):
        with bring.database.read() as session:
            owner = the(session, name)
            rows = exports.responses(session, owner, "imported"), exports.verdicts(session, owner, "imported")
            return [b"".join(exports.as_lines(each)) for each in rows]

    before = given_out("e")
    assert json.loads(before[0].splitlines()[0]) == {
        "prompt_id": "p", "model": "a", "prompt": [{"role": "user", "content": "What?"}], "category": "odd",
        "reference": "1", "response": "one", "ended": True, "tokens": 2, "checkpoint": 50,
    }  # fmt: skip
    bring.responses(before[0], "again")
    bring.verdicts(before[1], "again")
    assert given_out("again") == before


@pytest.mark.parametrize("name", ["a\nb", "x" * 201, "a\0b", "\x1b[31m"])
def test_a_prompt_sets_name_is_one_short_line(bring, name):
    with pytest.raises(Invalid) as caught:
        bring.verdicts([GOOD], prompts=name)
    assert list(caught.value.fields) == ["prompts"]
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


def test_rows_go_into_the_only_prompt_set_or_into_the_one_that_is_named(bring):
    assert bring.responses([answer("p", "a")]).set_name == "imported"
    assert bring.responses([answer("q", "a")], prompts="mine").set_name == "mine"
    with pytest.raises(Invalid, match="has the prompt sets imported, mine"):
        bring.responses([answer("r", "a")])
    assert bring.responses([answer("p", "a")], prompts="held_out").set_name == "held_out"
    assert bring.responses([answer("p", "b")]).set_name == "held_out"


def test_an_experiment_of_a_name_that_is_none_is_refused(bring):
    with pytest.raises(Invalid, match="An experiment's name"):
        bring.responses([answer("p", "a")], "../x")
    assert count(bring.database, *ALL) == [0, 0, 0, 0]


def test_imports_at_once_make_each_prompt_known_once(bring):
    rows = [answered([f"m{n}"], 50) for n in range(4)]
    together(bring, [lambda n=n: bring_file(bring, rows[n], n) for n in range(4)])
    assert count(bring.database, *ALL) == [1, 50, 200, 0]


def bring_file(bring, rows, number):
    from app.winrates.imports import import_responses

    import_responses(bring.database, bring.file(lines(rows), f"{number}.jsonl"), "e")


def together(bring, works):
    barrier, failed = threading.Barrier(len(works)), []

    def work(do):
        barrier.wait()
        try:
            do()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work, args=(do,)) for do in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_runs_that_finish_at_once_make_each_prompt_known_once(bring):
    from tests.app.winrates.made import finish, run

    with bring.database.write() as session:
        configs = [
            parse_config({"stage": "respond", "model": f"api:local/m{n}", "prompts": "held_out"}) for n in range(4)
        ]
        ids = [run(session, f"ask{n}", config).id for n, config in enumerate(configs)]

    def take(n):
        with bring.database.write() as session:
            finish(session, the(session), answered([f"m{n}"], 50), ids[n])

    together(bring, [lambda n=n: take(n) for n in range(4)])
    assert count(bring.database, Prompt, Response) == [50, 200]


def test_what_one_row_says_of_a_prompt_is_kept_whatever_row_it_is_and_whenever_it_comes(bring):
    asked = [{"role": "user", "content": "2 + 2?"}]
    bring.responses([answer("p0", "a", category="sums"), answer("p0", "b", prompt="2 + 2?")])
    assert [(each.messages, each.category, each.reference) for each in prompts(bring)] == [(asked, "sums", None)]
    bring.responses([answer("p0", "c", prompt="2 + 2?", category="other", reference="4"), answer("p1", "c")])
    bring.responses([answer("p1", "a", reference="5")])
    found = [(each.messages, each.category, each.reference) for each in prompts(bring)]
    assert found == [(asked, "sums", "4"), (None, None, "5")]


def prompts(bring):
    with bring.database.read() as session:
        return session.exec(select(Prompt).order_by(Prompt.prompt_id)).all()
