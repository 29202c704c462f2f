"""A model behind an OpenAI-compatible endpoint: chat completions, many at once, asked again where that helps.

What it does: several requests in flight, so many a minute at most; 429, 408, 409 and 5xx, connections that break,
answers that do not come or are no answers, are asked again after a wait that doubles; Retry-After is followed; other
refusals end at once. Wherever it ends, answers on their way get a moment (in_flight.GRACE): they are paid for.
What it does not: streaming, tools, redirects (a key would go to another host), proxies for this machine's own servers.

The key is in the environment alone (`key_variable`); a server may repeat it in its messages, so it is taken out there.

It is httpx2, which huggingface_hub brings, and not the `openai` package: that one's retries cannot be stopped, it
follows redirects, tells the server of this machine, reads settings of its own from the environment, takes any JSON
for an answer, and bounds neither an answer's size nor the whole of its time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from training.config.asking import AskingConfig
from training.data.examples import Message
from training.endpoint_replies import AskAgain, Refused, Reply, read_reply
from training.errors import EndpointError
from training.in_flight import End, as_they_come
from training.journal import Journal
from training.references import Reference, key_variable
from training.throttle import Throttle

MOST_BYTES = 16 << 20  # of one answer
LONGEST_PAUSE = 60.0  # seconds between two tries, unless the server asks for more
SECRET_FROM = 8  # characters from which a key is taken out of answers too: “EMPTY” and the like are words
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


@dataclass(frozen=True, slots=True)
class Request:
    """One chat to complete. `options`: other fields of the request, such as temperature or max_tokens."""

    key: str
    messages: Sequence[Message]
    options: Mapping[str, Any] = field(default_factory=dict)


class Endpoint:
    """One model of one endpoint, as a run asks it. `first_pause`: seconds before the second try."""

    def __init__(
        self, reference: Reference, url: str, config: AskingConfig, journal: Journal | None, first_pause: float = 1.0
    ) -> None:
        self.name, _, self.model = reference.name.partition("/")
        self.retries = 0  # tries that brought no answer and were made again
        self._address = f"{url.rstrip('/')}/chat/completions"
        self._config, self._journal, self._first_pause = config, journal, first_pause
        self._key = _key(self.name)
        self._told = Throttle(10.0)
        self._next_turn = 0.0  # monotonic: of requests_per_minute, and of a Retry-After
        self._names: dict[str, str] = {}  # options that the server takes under another name, or (empty) not at all

    def chat(self, messages: Sequence[Message], **options: Any) -> Reply:
        """Complete one chat. Raises EndpointError."""
        [(_, reply)] = self.ask([Request("", messages, options)])
        return reply

    def ask(
        self,
        requests: Iterable[Request],
        stop: Callable[[], bool] = lambda: False,
        begin: Callable[[str], None] = lambda key: None,
    ) -> Iterator[tuple[str, Reply]]:
        """Complete chats, `config.concurrency` at once, and give each answer, under its request's key, as it comes.

        `begin` is called with a request's key before it is first sent. All happens in this thread, between two
        answers too little to matter: keep an answer at once and come back. Raises EndpointError, or Stopped where
        `stop()` says so; in both cases nothing more is asked, and what comes within GRACE seconds is given first.
        """
        most = self._config.concurrency

        async def complete(client: httpx2.AsyncClient, request: Request, end: End) -> Reply:
            return await self._complete(client, request, end, begin)

        for request, reply in as_they_come(requests, lambda: _client(most), complete, most, stop):
            yield request.key, reply

    # -- one request ---------------------------------------------------------------------------------------------

    async def _complete(
        self, client: httpx2.AsyncClient, request: Request, end: End, begin: Callable[[str], None]
    ) -> Reply:
        """One request, tried until there is an answer."""
        tries, most = 0, self._config.request_tries
        while True:
            await self._turn(end)
            if not tries:
                begin(request.key)
            tries += 1
            names = dict(self._names)
            try:
                return await self._once(client, request, names)
            except Refused as error:
                if error.option not in request.options or error.option in names:
                    raise self._failed(str(error), error.hint, tries) from None
                self._do_without(error.option)
            except AskAgain as error:
                if tries >= most:
                    hint = "What was answered is kept: resume when it answers again, or allow more tries."
                    raise self._failed(str(error), hint, tries) from None
                self.retries += 1
                pause = self._pause(tries, error.wait)
                if self._told.ready():
                    self._warn(f"{self._whole(str(error))} It is asked again (try {tries + 1} of {most}).")
                await end.wait(pause)

    def _pause(self, tries: int, asked_for: float | None) -> float:
        """Seconds until the next try: doubling, and half of it by chance, so that many requests do not come at once."""
        doubled: float = min(self._first_pause * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE)
        pause = doubled * random.uniform(0.5, 1.0)
        if asked_for is not None:  # of all requests, not of this one alone
            self._next_turn = max(self._next_turn, time.monotonic() + asked_for)
            pause += asked_for  # and then some, so that not all come back at once
        return pause

    async def _turn(self, end: End) -> None:
        """Wait until a request may be made. Raises Over where none is made any more."""
        await end.wait(0)
        while (left := self._next_turn - time.monotonic()) > 0:
            await end.wait(left)
        if self._config.requests_per_minute is not None:
            self._next_turn = time.monotonic() + 60.0 / self._config.requests_per_minute

    async def _once(self, client: httpx2.AsyncClient, request: Request, names: Mapping[str, str]) -> Reply:
        """One try. `names`: what the server calls options otherwise; empty: nothing. Raises AskAgain, Refused."""
        options = {names.get(name, name): value for name, value in request.options.items()}
        options.pop("", None)
        body = {"model": self.model, "messages": list(request.messages), **options}
        seconds = self._config.request_timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._send(client, json.dumps(body).encode())  # all ASCII: half a surrogate passes too
        except TimeoutError:
            raise AskAgain(f"there was no whole answer within {seconds:g} seconds") from None
        except httpx2.ConnectError as error:
            raise AskAgain(f"there is no connection to {_host(self._address)} ({self._words(error)})") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise AskAgain(f"the connection broke off ({self._words(error)})") from None
        except httpx2.InvalidURL as error:
            raise Refused(f"its address is none ({self._words(error)})", "Correct it in the settings.") from None

    async def _send(self, client: httpx2.AsyncClient, content: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "User-Agent": "preflab"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        async with client.stream("POST", self._address, content=content, headers=headers) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise Refused(
                        f"its answer is larger than {MOST_BYTES >> 20} MiB",
                        "Check that the address is that of a server of chat completions.",
                    )
            reply = read_reply(response.status_code, response.headers, bytes(body), self._clean)
        if len(self._key) < SECRET_FROM:
            return reply
        return Reply(self._clean(reply.text), reply.ended, reply.tokens)

    # -- words ---------------------------------------------------------------------------------------------------

    def _do_without(self, option: str) -> None:
        """Learn that this server takes an option under another name, or not at all."""
        if option in self._names:
            return  # a request beside this one has learnt it
        self._names[option] = "max_completion_tokens" if option == "max_tokens" else ""
        if not self._names[option]:
            self._warn(f"The endpoint “{self.name}” does not take “{option}” for {self.model}: it is left out.")

    def _failed(self, reason: str, hint: str, tries: int) -> EndpointError:
        times = "once" if tries == 1 else f"{tries} times"
        if "it answered 401" in reason or "it answered 403" in reason:
            what = "Correct" if self._key else "Set"
            hint = f"{what} its key, the environment variable {key_variable(self.name)} of the worker."
        return EndpointError(f"{self._whole(reason)} It was asked {times}.", hint)

    def _whole(self, reason: str) -> str:
        return f"The endpoint “{self.name}” gave no answer of {self.model}: {reason}."

    def _warn(self, sentence: str) -> None:
        if self._journal is not None:
            self._journal.log(sentence, "warning")

    def _words(self, error: Exception) -> str:
        lines = self._clean(str(error)).strip().splitlines() or [type(error).__name__]
        return lines[0][:200].rstrip(".")

    def _clean(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self._key, "[key]") if self._key else text


def _client(connections: int) -> httpx2.AsyncClient:
    """Without a time limit of its own: the whole of a request has one."""
    logging.getLogger("httpcore2").setLevel(logging.INFO)  # its debug lines hold a response's headers
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(timeout=None, follow_redirects=False, limits=limits, mounts=dict.fromkeys(LOOPBACK))


def _key(endpoint: str) -> str:
    """The endpoint's key, or nothing. Raises EndpointError for what no header can carry, and does not repeat it."""
    name = key_variable(endpoint)
    key = os.environ.get(name, "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise EndpointError(
            f"The key of the endpoint “{endpoint}” holds spaces or other characters that keys do not have.",
            f"Correct the environment variable {name} of the worker.",
        )
    return key


def _host(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
