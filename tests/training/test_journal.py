"""The journal: what is written is read back, and what is not a line is held back or quarantined, never lost."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.journal import MAX_LINE, MAX_TEXT, BadLine, Journal, Record, number, parse_line, read_lines

GOOD = b'{"attempt":1,"seq":0,"time":5.5,"kind":"log","level":"info","message":"hello"}'


def make(tmp_path, attempt=1):
    return Journal(tmp_path / "journal.jsonl", attempt, clock=lambda: 1700000000.25)


def test_what_is_written_is_read_back(tmp_path):
    journal = make(tmp_path)
    journal.metrics(3, loss=2.5, tokens=4096)
    journal.progress("training", 3, 10, "steps")
    journal.sample(3, 0, "2 + 2?", "4", ended=True)
    chunk = read_lines(tmp_path / "journal.jsonl", 0)
    assert chunk.end == (tmp_path / "journal.jsonl").stat().st_size
    metrics, progress, sample = chunk.lines
    assert metrics == Record(1, 0, 1700000000.25, "metrics", 3, {"values": {"loss": 2.5, "tokens": 4096}})
    assert progress.body == {"task": "training", "done": 3, "total": 10, "unit": "steps"}
    assert (sample.seq, sample.step, sample.body["response"], sample.body["ended"]) == (2, 3, "4", True)


def test_numbers_that_json_does_not_know_are_written_as_strings_and_every_line_is_valid_json(tmp_path):
    journal = make(tmp_path)
    journal.metrics(1, loss=math.nan, up=math.inf, down=-math.inf)
    line = (tmp_path / "journal.jsonl").read_bytes()
    values = json.loads(line, parse_constant=pytest.fail)["values"]
    assert values == {"loss": "NaN", "up": "Infinity", "down": "-Infinity"}
    record = parse_line(line.rstrip())
    assert isinstance(record, Record)
    assert math.isnan(number(record.body["values"]["loss"]))
    assert number(record.body["values"]["down"]) == -math.inf


def test_a_torn_last_line_is_held_back_until_its_newline_comes(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD[:20])
    first = read_lines(path, 0)
    assert (len(first.lines), first.end) == (1, len(GOOD) + 1)
    assert read_lines(path, first.end).lines == []
    with path.open("ab") as file:
        file.write(GOOD[20:] + b"\n")
    assert len(read_lines(path, first.end).lines) == 1


def test_a_resumed_journal_ends_the_torn_line_and_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    make(tmp_path, attempt=1).log("first")
    with path.open("ab") as file:
        file.write(b'{"attempt":1,"se')
    make(tmp_path, attempt=2).log("second")
    first, torn, second = read_lines(path, 0).lines
    assert first.body["message"] == "first"
    assert isinstance(torn, BadLine)
    assert (second.attempt, second.seq, second.body["message"]) == (2, 0, "second")


def test_an_endless_line_is_one_bad_line_and_what_follows_it_is_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" * (5 * MAX_LINE) + b"\n" + GOOD + b"\n")
    chunk = read_lines(path, 0, limit=MAX_LINE)
    assert isinstance(chunk.lines[0], BadLine)
    assert "longer than" in chunk.lines[0].reason
    assert isinstance(read_lines(path, chunk.end).lines[0], Record)


def test_an_endless_line_without_its_newline_is_held_back(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" * (3 * MAX_LINE))
    assert read_lines(path, 0, limit=10).lines == []
    assert read_lines(path, 0, limit=10).end == 0


def test_a_text_that_is_too_long_is_cut_and_says_so(tmp_path):
    make(tmp_path).log("a" * (MAX_TEXT + 1234))
    (record,) = read_lines(tmp_path / "journal.jsonl", 0).lines
    assert record.body["message"].endswith("(1,234 characters cut)")


def test_a_lone_surrogate_does_not_break_the_line(tmp_path):
    make(tmp_path).sample(1, 0, "\ud800", "ok", ended=False)
    (record,) = read_lines(tmp_path / "journal.jsonl", 0).lines
    assert record.body["prompt"] == "?"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\x00\x00", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"attempt":-1,"seq":0,"time":1,"kind":"log"}', "attempt"),
        (b'{"attempt":true,"seq":0,"time":1,"kind":"log"}', "attempt"),
        (b'{"attempt":1,"seq":9223372036854775808,"time":1,"kind":"log"}', "seq"),
        (b'{"attempt":1,"seq":0,"time":"now","kind":"log"}', "time"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"gossip"}', "unknown kind"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":["log"]}', "unknown kind"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","values":{}}', "without a step"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","step":1}', "without values"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","step":1,"values":{"loss":"low"}}', "not a number"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","step":1,"values":{"loss":true}}', "not a number"),
        (b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","step":1,"values":{"loss":[]}}', "not a number"),
        (GOOD + b" " * MAX_LINE, "longer than"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(line, reason):
    bad = parse_line(line)
    assert isinstance(bad, BadLine)
    assert reason in bad.reason


@given(st.binary(max_size=300))
def test_parsing_never_raises_and_what_is_shown_of_a_bad_line_is_printable(line):
    found = parse_line(line)
    if isinstance(found, BadLine):
        assert found.text.isprintable() or found.text == ""


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.floats() | st.integers(-(2**53), 2**53), max_size=6),
    st.integers(0, 2**53),
)
def test_any_metrics_survive_the_journal(tmp_path_factory, values, step):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder / "j", 1, clock=lambda: 0.0)
    journal.log("a neighbour")
    journal.close()
    journal = Journal(folder / "j", 1, clock=lambda: 0.0)
    journal.metrics(step, **{key.encode("utf-8", "replace").decode(): value for key, value in values.items()})
    record = read_lines(folder / "j", 0).lines[-1]
    assert isinstance(record, Record)
    for key, value in values.items():
        read = number(record.body["values"][key.encode("utf-8", "replace").decode()])
        assert read == value or math.isnan(value)


@given(st.lists(st.sampled_from([GOOD, b"junk", b"", b'{"a":1}']), max_size=30), st.integers(1, 200))
def test_reading_in_pieces_gives_the_same_lines_as_reading_at_once(tmp_path_factory, lines, limit):
    path = tmp_path_factory.mktemp("journal") / "j"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    whole = read_lines(path, 0).lines
    pieces, offset = [], 0
    while (chunk := read_lines(path, offset, limit)).end > offset:
        pieces += chunk.lines
        offset = chunk.end
    assert pieces == whole
    assert len(whole) == sum(1 for line in lines if line)
