"""The client of an OpenAI-compatible endpoint, against a real server in this process that misbehaves."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.training.chat_server import SILENT, Answer, Asked, ChatServer, Says, chat_server, completion, in_turn, says
from training.config.asking import AskingConfig
from training.endpoint import MOST_BYTES, Endpoint, Request
from training.endpoint_replies import MOST_WAIT, Refused, Reply, read_reply
from training.errors import EndpointError, Stopped
from training.journal import Journal
from training.references import parse_reference

HELLO = [{"role": "user", "content": "Hello"}]
KEY = "sk-secret-0123456789"


class Settings(AskingConfig):
    stage: str = "judge"


def endpoint(url: str, journal: Journal | None = None, **settings: Any) -> Endpoint:
    reference = parse_reference("api:local/org/model:8b")
    config = Settings(**{"request_timeout": 10.0, "request_tries": 4, **settings})
    return Endpoint(reference, url, config, journal, first_pause=0.01)


def requests(*texts: str) -> list[Request]:
    return [Request(text, [{"role": "user", "content": text}]) for text in texts]


def echo(asked: Asked) -> str:
    return f"You said {asked.last}"


def failure_of(answer: Answer, **settings: Any) -> tuple[EndpointError, ChatServer]:
    with chat_server(answer) as server, pytest.raises(EndpointError) as caught:
        endpoint(server.url, **settings).chat(HELLO)
    return caught.value, server


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.jsonl", 1)
    yield journal
    journal.close()


# -- what is sent, and what is read --------------------------------------------------------------------------------


def test_a_chat_is_sent_as_openai_documents_it_and_its_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", KEY)
    with chat_server(in_turn(says(completion("  Hi.\n", "length", 7)))) as server:
        reply = endpoint(server.url + "/").chat(HELLO, temperature=0.5, max_tokens=7)
    [asked] = server.asked
    assert reply == Reply("  Hi.\n", False, 7)
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {"model": "org/model:8b", "messages": HELLO, "temperature": 0.5, "max_tokens": 7}
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent() -> None:
    with chat_server(echo) as server:
        endpoint(server.url).chat(HELLO)
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (completion("", "stop", 0), Reply("", True, 0)),
        (completion(None, "content_filter"), Reply("", False, 3)),
        (completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), Reply("ab", True, 3)),
        ({"choices": [{"message": {"content": "bare"}}]}, Reply("bare", True, None)),
        ({"choices": [{"message": [{"role": "assistant", "content": "reward:-3.28125"}]}]}, Reply("reward:-3.28125", True)),
        (completion("שלום <script> \x00 {x}"), Reply("שלום <script>  {x}", True, 3)),
    ],
)  # fmt: skip
def test_other_forms_of_an_answer_are_read(content: Any, reply: Reply) -> None:
    with chat_server(in_turn(says(content))) as server:
        assert endpoint(server.url).chat(HELLO) == reply


def test_half_a_surrogate_does_no_harm_in_either_direction() -> None:
    with chat_server(in_turn(says(completion("a\ud83d")))) as server:
        assert endpoint(server.url).chat([{"role": "user", "content": "b\udc00"}]).text == "a?"
    assert server.asked[0].last == "b\udc00"


# -- what is asked again -------------------------------------------------------------------------------------------

AGAIN = {
    "429": (says({"error": {"message": "slow down"}}, 429, Retry_After="0"), "429 (Too Many Requests): “slow down”"),
    "408": (says({}, 408), "408 (Request Timeout)"),
    "409": (says({"detail": "locked"}, 409), "409 (Conflict): “locked”"),
    "500": (says({"error": "boom"}, 500), "500 (Internal Server Error): “boom”"),
    "529": (Says(529, b"<html>busy</html>"), "it answered 529"),
    "no json": (Says(200, b"<html>hello</html>"), "not with a chat completion in JSON"),
    "another shape": (says({"error": {"message": "no GPU"}}), "not with a chat completion in JSON: “no GPU”"),
    "a list": (says([1, 2]), "not with a chat completion"),
    "no choices": (says({"choices": []}), "not with a chat completion"),
    "a number for an answer": (says(completion(3)), "not with a chat completion"),
    "not UTF-8": (Says(200, b'{"choices": "\xff"}'), "not with a chat completion"),
    "deeply nested": (Says(200, b"[" * 200_000), "not with a chat completion"),
    "half a body": (Says(200, b'{"choices": [', length=500), "the connection broke off"),
    "nothing at all": (Says(200, b"", length=100), "the connection broke off"),
    "badly packed": (Says(200, b"no gzip", {"Content-Encoding": "gzip"}), "the connection broke off"),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_what_may_pass_is_asked_again(name: str) -> None:
    with chat_server(in_turn(AGAIN[name][0], AGAIN[name][0], "at last")) as server:
        asking = endpoint(server.url)
        assert asking.chat(HELLO).text == "at last"
    assert (len(server.asked), asking.retries) == (3, 2)


@pytest.mark.parametrize("name", AGAIN)
def test_what_does_not_pass_ends_with_what_happened_and_how_often(name: str) -> None:
    said, words = AGAIN[name]
    error, server = failure_of(in_turn(said))
    assert len(server.asked) == 4
    assert error.failure.message.startswith("The endpoint “local” gave no answer of org/model:8b: ")
    assert words in error.failure.message
    assert error.failure.message.endswith("It was asked 4 times.")
    assert "resume" in error.failure.hint


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    with chat_server(in_turn(SILENT, "at last")) as server:
        assert endpoint(server.url, request_timeout=0.3).chat(HELLO).text == "at last"
    error, _ = failure_of(in_turn(SILENT), request_timeout=0.2, request_tries=1)
    assert "there was no whole answer within 0.2 seconds. It was asked once." in error.failure.message


def test_an_answer_that_comes_drop_by_drop_has_the_same_time() -> None:
    """Each drop comes in time; the whole does not."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not done.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        with pytest.raises(EndpointError, match="no whole answer within"):
            endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", request_timeout=0.5, request_tries=1).chat(
                HELLO
            )
        done.set()
        thread.join()
    assert time.monotonic() - started < 5


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EndpointError, match=f"there is no connection to 127.0.0.1:{port} .*asked 3 times"):
        endpoint(f"http://127.0.0.1:{port}/v1", request_tries=3).chat(HELLO)


def test_retry_after_is_waited_for_by_all_requests() -> None:
    times: list[float] = []

    def answer(asked: Asked) -> str | Says:
        times.append(time.monotonic())
        return says({}, 429, Retry_After="1") if len(times) == 1 else "yes"

    with chat_server(answer) as server:
        found = list(endpoint(server.url, concurrency=1).ask(requests("a")))
    assert found == [("a", Reply("yes", True, 3))]
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0), ("0.5", 0.5), ("86400", MOST_WAIT), ("-3", 0.0), ("soon", None), ("", None), ("nan", None),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1)), 0.0),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1)), MOST_WAIT),
    ],
    ids=["seconds", "half a second", "a day", "below 0", "a word", "empty", "nan", "an hour ago", "in an hour"],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date_and_capped(value: str, seconds: float | None) -> None:
    from training.endpoint_replies import AskAgain

    with pytest.raises(AskAgain) as caught:
        read_reply(429, {"retry-after": value}, b"", str)
    assert caught.value.wait == seconds


# -- what is not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "longest context"), (401, "PREFLAB_KEY_LOCAL"), (402, "balance"), (403, "PREFLAB_KEY_LOCAL"),
     (404, "/v1"), (422, "longest context")],
)  # fmt: skip
def test_a_refusal_ends_at_once(status: int, hint: str) -> None:
    error, server = failure_of(in_turn(says({"error": {"message": "no such thing"}}, status)))
    assert len(server.asked) == 1
    assert f"it answered {status}" in error.failure.message and "“no such thing”" in error.failure.message
    assert "It was asked once." in error.failure.message
    assert hint in error.failure.hint


def test_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", KEY)
    with chat_server(echo) as other:
        for status in (301, 302, 307, 308):
            error, server = failure_of(in_turn(Says(status, headers={"Location": other.url})))
            assert len(server.asked) == 1
            assert other.url in error.failure.message
    assert not other.asked


def test_an_answer_without_end_is_refused() -> None:
    error, server = failure_of(in_turn(Says(200, b" " * (MOST_BYTES + 1))))
    assert len(server.asked) == 1
    assert "larger than 16 MiB" in error.failure.message


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(EndpointError, match="its address is none"):
        endpoint("http://[::1/v1").chat(HELLO)


# -- the key -------------------------------------------------------------------------------------------------------


def test_the_key_is_nowhere_even_where_the_server_repeats_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, journal: Journal, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", KEY)
    caplog.set_level(logging.DEBUG)
    said = f"Incorrect API key {KEY}{'x' * 280}{KEY}"
    answers: list[Says] = [
        says({"error": {"message": said}}, 500), Says(500, said.encode()), says(completion(f"Your key is {KEY}.")),
        says({"error": {"message": said}}, 401), Says(302, headers={"Location": f"/{KEY}"}),
    ]  # fmt: skip
    with chat_server(in_turn(*answers)) as server:
        asking = endpoint(server.url, journal)
        assert asking.chat(HELLO).text == "Your key is [key]."
        errors = []
        for _ in range(2):
            with pytest.raises(EndpointError) as caught:
                asking.chat(HELLO)
            errors.append(caught.value)
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "asked again" in written
    for text in (*(f"{error.failure} {error!r}" for error in errors), repr(asking), written, caplog.text):
        assert KEY not in text and KEY[:12] not in text
    assert "“Incorrect API key [key]x" in errors[0].failure.message
    assert all(error.__suppress_context__ and error.__cause__ is None for error in errors)


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", "sk-one\nX-Other: sk-two")
    with pytest.raises(EndpointError, match="holds spaces") as caught:
        endpoint("http://127.0.0.1:1/v1")
    assert "PREFLAB_KEY_LOCAL" in caught.value.failure.hint
    assert "sk-" not in str(caught.value.failure)


def test_a_word_for_a_key_stays_in_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", "EMPTY")
    with chat_server(in_turn("The list is EMPTY.")) as server:
        assert endpoint(server.url).chat(HELLO).text == "The list is EMPTY."


# -- many ----------------------------------------------------------------------------------------------------------


def test_as_many_are_asked_at_once_as_the_settings_say() -> None:
    together = threading.Barrier(3)

    def answer(asked: Asked) -> str:
        together.wait(10)  # three at once, or nobody goes on
        return asked.last.upper()

    with chat_server(answer) as server:
        found = dict(endpoint(server.url, concurrency=3).ask(requests(*"abcdef")))
    assert {key: reply.text for key, reply in found.items()} == {each: each.upper() for each in "abcdef"}
    assert server.most_at_once == 3


def test_answers_are_given_as_they_come_and_begun_before_they_are_asked_for() -> None:
    others_are_there = threading.Event()
    begun: list[str] = []
    unannounced: list[str] = []

    def answer(asked: Asked) -> str:
        if asked.last not in begun:
            unannounced.append(asked.last)
        if asked.last == "slow":
            others_are_there.wait(10)
        return asked.last

    with chat_server(answer) as server:
        found = []
        for key, _ in endpoint(server.url, concurrency=2).ask(requests("slow", "b", "c", "d"), begin=begun.append):
            found.append(key)
            assert len(begun) <= len(found) + 2
            if len(found) == 3:
                others_are_there.set()
    assert found == ["b", "c", "d", "slow"]
    assert not unannounced


def test_requests_come_no_faster_than_the_settings_say() -> None:
    times: list[float] = []

    def answer(asked: Asked) -> str:
        times.append(time.monotonic())
        return "yes"

    with chat_server(answer) as server:
        list(endpoint(server.url, concurrency=8, requests_per_minute=600).ask(requests(*"abcdef")))
    assert times[-1] - times[0] >= 0.45  # five intervals of 0.1 s, less what a request takes on its way
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(times))


def test_a_wish_to_stop_is_heard_while_an_answer_does_not_come() -> None:
    wanted = threading.Event()

    def answer(asked: Asked) -> Says | str:
        if asked.last == "c":
            wanted.set()
        return SILENT if asked.last == "c" else "yes"

    with chat_server(answer) as server:
        asking = endpoint(server.url, concurrency=1, request_timeout=60)
        found = []
        started = time.monotonic()
        with pytest.raises(Stopped):
            found.extend(asking.ask(requests(*"abcd"), stop=wanted.is_set))  # a generator's items stay where it raises
        assert time.monotonic() - started < 10
        assert [asked.last for asked in server.asked] == ["a", "b", "c"]


def test_what_is_on_its_way_when_a_stop_is_wished_for_is_still_given() -> None:
    wanted = threading.Event()

    def answer(asked: Asked) -> str:
        wanted.set()
        return "yes"

    with chat_server(answer) as server:
        found = []
        with pytest.raises(Stopped):
            for key, _ in endpoint(server.url, concurrency=2).ask(requests(*"abcd"), stop=wanted.is_set):
                found.append(key)
        assert found == [asked.last for asked in server.asked], "paid for and kept"
    assert 1 <= len(found) < 4


def test_a_wish_to_stop_is_heard_while_a_try_is_waited_for() -> None:
    asked_once = threading.Event()

    def answer(asked: Asked) -> Says:
        asked_once.set()
        return says({}, 429, Retry_After="100")

    with chat_server(answer) as server:
        started = time.monotonic()
        with pytest.raises(Stopped):
            list(endpoint(server.url).ask(requests("a"), stop=asked_once.is_set))
    assert time.monotonic() - started < 5
    assert len(server.asked) == 1


def test_a_final_failure_ends_all_and_nothing_more_is_asked() -> None:
    def answer(asked: Asked) -> str | Says:
        return says({"error": "no such model"}, 404) if asked.last == "c" else "yes"

    with chat_server(answer) as server:
        found = []
        with pytest.raises(EndpointError, match="404"):
            for key, _ in endpoint(server.url, concurrency=1).ask(requests(*"abcdef")):
                found.append(key)
        seen = [asked.last for asked in server.asked]
    assert found == ["a", "b"]
    assert seen == ["a", "b", "c"]


def test_after_a_final_failure_others_are_not_tried_again_either() -> None:
    both = threading.Barrier(2)

    def answer(asked: Asked) -> Says:
        both.wait(10)
        return says({}, 404) if asked.last == "a" else says({}, 503)

    with chat_server(answer) as server:
        with pytest.raises(EndpointError, match="404"):
            list(endpoint(server.url, concurrency=2, request_tries=50).ask(requests("a", "b", "c")))
        assert sorted(asked.last for asked in server.asked) == ["a", "b"]


def test_whoever_reads_no_further_leaves_nothing_running() -> None:
    before = threading.active_count()
    with chat_server(echo) as server:
        asking = endpoint(server.url, concurrency=2).ask(requests(*"abcdef"))
        next(asking)
        asking.close()  # type: ignore[attr-defined]
        assert len(server.asked) <= 3
    assert threading.active_count() == before


def test_a_failure_of_the_log_of_what_was_begun_is_not_hidden() -> None:
    def begin(key: str) -> None:
        raise OSError("full")

    with chat_server(echo) as server, pytest.raises(OSError, match="full"):
        list(endpoint(server.url).ask(requests("a"), begin=begin))
    assert not server.asked


# -- options that a server does not take ---------------------------------------------------------------------------


def test_options_that_a_model_does_not_take_are_renamed_or_left_out(journal: Journal, tmp_path: Path) -> None:
    """As OpenAI's reasoning models refuse max_tokens and a temperature."""

    def answer(asked: Asked) -> str | Says:
        for option, code in (("max_tokens", "unsupported_parameter"), ("temperature", "unsupported_value")):
            if option in asked.body:
                return says({"error": {"message": f"no {option}", "param": option, "code": code}}, 400)
        return "yes"

    def asked_with_options() -> list[Request]:
        return [Request(each, HELLO, {"max_tokens": 9, "temperature": 0.0, "seed": 1}) for each in "abcd"]

    with chat_server(answer) as server:
        found = list(endpoint(server.url, journal, concurrency=4, request_tries=1).ask(asked_with_options()))
    assert len(found) == 4
    last = server.asked[-1].body
    assert last["max_completion_tokens"] == 9 and last["seed"] == 1 and "temperature" not in last
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["message"] for line in lines] == [
        "The endpoint “local” does not take “temperature” for org/model:8b: it is left out."
    ]


def test_another_refusal_with_options_is_a_refusal() -> None:
    said = {"error": {"message": "too long", "param": "messages", "code": "context_length_exceeded"}}
    with pytest.raises(Refused):
        read_reply(400, {}, json.dumps(said).encode(), str)
    error, server = failure_of(in_turn(says(said, 400)))
    assert "too long" in error.failure.message and len(server.asked) == 1
