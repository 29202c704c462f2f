"""A server of chat completions in the test's process, which answers, or misbehaves, as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def last(self) -> str:
        """What the last message says."""
        content: str = self.body["messages"][-1]["content"]
        return content


@dataclass(frozen=True)
class Says:
    """A response: `content` as it is sent. `length`: another Content-Length than its own. `silent`: none, until the end."""

    status: int = 200
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    silent: bool = False


SILENT = Says(silent=True)


def completion(text: Any, finish: str | None = "stop", tokens: int = 3) -> dict[str, Any]:
    """OpenAI's own form of an answer."""
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens},
    }  # fmt: skip


def says(content: Any, status: int = 200, **headers: str) -> Says:
    """A response with JSON. Underscores in the headers' names stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says(status, json.dumps(content).encode(), {"Content-Type": "application/json", **named})


Answer = Callable[[Asked], "str | Says"]


class ChatServer:
    """Counts what is asked. `answer`: what it says to a request; a text is an answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        handler = type("Handler", (_Handler,), {"chat": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def chat_server(answer: Answer) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    try:
        yield server
    finally:
        server.close()


def in_turn(*answers: str | Says) -> Answer:
    """One answer after another; the last one again and again."""
    left = list(answers)
    lock = threading.Lock()

    def answer(asked: Asked) -> str | Says:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return answer


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
        with self.chat.lock:
            self.chat.asked.append(asked)
            self.chat.at_once += 1
            self.chat.most_at_once = max(self.chat.most_at_once, self.chat.at_once)
        try:
            answer = self.chat.answer(asked)
        finally:
            with self.chat.lock:
                self.chat.at_once -= 1
        self._send(says(completion(answer)) if isinstance(answer, str) else answer)

    def _send(self, said: Says) -> None:
        if said.silent:
            self.chat.ended.wait()
            self.close_connection = True
            return
        with contextlib.suppress(OSError):  # who asked may be gone
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.content) if said.length is None else said.length))
            self.end_headers()
            self.wfile.write(said.content)
        if said.length is not None:
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass
