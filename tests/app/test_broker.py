"""The queue of files: whole messages, each taken once, whatever lies about in its folder."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kombu import Connection

from app import doorbell
from app.doorbell import Doorbell, make_celery


@pytest.fixture
def queue(settings):
    """A simple queue on the settings' broker."""
    celery = make_celery(settings)
    with celery.connection_for_write() as connection, connection.SimpleQueue("celery") as simple:
        yield simple


def files(settings):
    return sorted(path.name for path in settings.queue_folder.iterdir() if path.is_file())


def test_messages_come_out_whole_and_in_order(queue, settings):
    for number in range(20):
        queue.put({"number": number})
    got = []
    for _ in range(20):
        message = queue.get(timeout=5)
        got.append(message.payload["number"])
        message.ack()
    assert got == list(range(20))
    assert files(settings) == []


def test_messages_are_private_to_their_owner(queue, settings):
    queue.put({"number": 1})
    (path,) = [path for path in settings.queue_folder.iterdir() if path.is_file()]
    assert path.stat().st_mode & 0o077 == 0
    assert settings.queue_folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"properties": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_message_that_cannot_be_read_is_set_aside_and_stops_nothing(queue, settings, content):
    (settings.queue_folder / "00000000000000000001_bad.celery.msg").write_bytes(content)
    queue.put({"number": 1})
    message = queue.get(timeout=5)
    assert message.payload == {"number": 1}
    message.ack()
    assert files(settings) == [".bad.00000000000000000001_bad.celery.msg"]


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200))
def test_whatever_a_file_holds_the_next_message_is_read(queue, settings, content):
    (settings.queue_folder / "00000000000000000001_any.celery.msg").write_bytes(content)
    queue.put({"number": 1})
    message = queue.get(timeout=5)
    assert message.payload == {"number": 1}
    message.ack()


def test_a_queue_that_was_wiped_takes_messages_again(queue, settings):

    queue.put({"number": 1})
    shutil.rmtree(settings.queue_folder)
    queue.put({"number": 2})
    message = queue.get(timeout=5)
    assert message.payload == {"number": 2}
    message.ack()


PUBLISHER = """
import sys
import time
from kombu import Connection
from app import broker
broker.register()
options = {"data_folder_in": sys.argv[1], "data_folder_out": sys.argv[1]}
with Connection("safefs://localhost", transport_options=options) as connection, connection.SimpleQueue("celery") as queue:
    for number in range(300):
        queue.put(f"{sys.argv[2]} {number}")
"""


def test_messages_of_several_publishers_reach_several_readers_once_each(settings):
    make_celery(settings)
    folder = str(settings.queue_folder)
    publishers = [subprocess.Popen([sys.executable, "-c", PUBLISHER, folder, str(name)]) for name in range(2)]
    options = {"data_folder_in": folder, "data_folder_out": folder}

    def read(_):
        got = []
        with Connection("safefs://localhost", transport_options=options) as connection:
            channel = connection.default_channel
            while any(each.poll() is None for each in publishers) or channel._size("celery"):
                try:
                    got.append(channel._get("celery")["body"])
                except Empty:
                    continue
        return got

    with ThreadPoolExecutor(3) as pool:
        got = [body for each in pool.map(read, range(3)) for body in each]
    assert len(got) == len(set(got)) == 600
    assert files(settings) == []


def test_a_broker_that_is_down_delays_nobody_and_is_only_logged(settings, caplog):

    bell = Doorbell(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    begun = time.monotonic()
    bell.ring(1)
    assert time.monotonic() - begun < 0.5
    bell.close(timeout=10)
    assert "could not be told of run 1" in caplog.text


def test_only_a_run_id_travels(queue, settings):
    bell = Doorbell(settings)
    bell.ring(17)
    bell.close()
    message = queue.get(timeout=5)
    assert message.headers["task"] == doorbell.TASK
    assert message.payload[0] == [17]
    assert message.payload[1] == {}
