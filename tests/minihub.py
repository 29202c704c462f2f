"""A small local Hub: models and data sets made on the fly from folders, over HTTP, with faults on demand.

    with MiniHub() as hub:
        commit = hub.add("model", "me/tiny", folder)
        os.environ["HF_ENDPOINT"] = hub.url

It speaks what huggingface_hub asks for when it lists, resolves and downloads: /api/{models,datasets}/ID[/revision/R],
/api/.../tree/R, and HEAD and GET of ID/resolve/R/PATH with ETag, X-Repo-Commit and ranges. Run as a program, it
serves folders: `python -m tests.minihub model=me/tiny=FOLDER dataset=me/chats=FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".parquet", ".bin")  # stored as LFS files: their ETag is a SHA-256


@dataclass
class Served:
    """One repository: its files' bytes at each commit, and its branches and tags."""

    kind: str
    id: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None  # without it, the repository is hidden

    def commit(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Request:
    """What was asked, for tests to look at."""

    method: str
    path: str
    range: str | None
    status: int


class MiniHub:
    """The server. `requests`: all that was asked. Faults: `fail`, `drop`, `stall`, and `spoil(path, bytes)`."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Served] = {}
        self.requests: list[Request] = []
        self.statuses: dict[str, list[int]] = {}
        self.drops: dict[str, list[int]] = {}
        self.stalls: dict[str, tuple[int, threading.Event]] = {}
        self.spoil: Callable[[str, bytes], bytes] = lambda path, content: content
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> MiniHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _bytes, event in self.stalls.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, kind: str, name: str, folder: Path, revision: str = "main") -> str:
        """Serve a folder as a new commit of a model or dataset; `revision` points to it. Returns the commit."""
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
        repo = self.repos.setdefault((kind, name), Served(kind, name))
        content = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})
        commit = hashlib.sha1(f"{name}{len(repo.commits)}{content}".encode()).hexdigest()
        repo.commits[commit] = files
        repo.refs[revision] = commit
        return commit

    def fail(self, path: str, *statuses: int) -> None:
        """Answer the next requests for paths that end so with these statuses."""
        self.statuses.setdefault(path, []).extend(statuses)

    def drop(self, path: str, *counts: int) -> None:
        """Break the next downloads of files that end so off after these numbers of bytes."""
        self.drops.setdefault(path, []).extend(counts)

    def stall(self, path: str, count: int) -> threading.Event:
        """Stop sending files that end so after `count` bytes, until the event is set."""
        event = threading.Event()
        self.stalls[path] = (count, event)
        return event

    def downloads(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(path)]


def _take(faults: dict[str, list[int]], path: str) -> int | None:
    for ending, left in faults.items():
        if path.endswith(ending) and left:
            return left.pop(0)
    return None


def etag(path: str, content: bytes) -> str:
    """SHA-256 of LFS files, git's blob id of others."""
    if path.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: MiniHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            status = None if self.command == "HEAD" else _take(hub.statuses, path)
            if status is not None:
                return self._send(status, b"", {"X-Error-Message": "asked for by the test"})
            api = re.fullmatch(r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/(.+))?", path)
            file = re.fullmatch(r"/(datasets/)?(.+?)/resolve/(.+)", path)
            if api:
                kind = "dataset" if api[1] == "datasets" else "model"
                return self._api(kind, api[2], api[3], api[4] or "main")
            if file:
                return self._file("dataset" if file[1] else "model", file[2], file[3])
            return self._error(404, "NotFound")

        def _repo(self, kind: str, name: str) -> Served | None:
            repo = hub.repos.get((kind, name))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if repo is None or (repo.token is not None and token != repo.token and not repo.gated):
                self._error(401 if not token else 404, "RepoNotFound")
                return None
            if repo.gated and token != repo.token:
                self._error(401 if not token else 403, "GatedRepo")
                return None
            return repo

        def _api(self, kind: str, name: str, what: str | None, revision: str) -> None:
            repo = self._repo(kind, name)
            if repo is None:
                return None
            commit = repo.commit(revision)
            if commit is None:
                return self._error(404, "RevisionNotFound")
            files = repo.commits[commit]
            if what == "tree":
                return self._json([_entry(path, content) for path, content in files.items()])
            return self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})

        def _file(self, kind: str, name: str, rest: str) -> None:
            repo = self._repo(kind, name)
            if repo is None:
                return None
            revision = next((each for each in (*repo.refs, *repo.commits) if rest.startswith(f"{each}/")), None)
            if revision is None:
                return self._error(404, "RevisionNotFound")
            commit, path = repo.commit(revision) or "", rest[len(revision) + 1 :]
            content = repo.commits[commit].get(path)
            if content is None:
                return self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
            headers = {"ETag": f'"{etag(path, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            content = hub.spoil(path, content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if asked and int(asked[1]) < len(content):
                headers["Content-Range"] = f"bytes {asked[1]}-{len(content) - 1}/{len(content)}"
                return self._send(206, content[int(asked[1]) :], headers)
            return self._send(200, content, headers)

        def _json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            path = unquote(urlsplit(self.path).path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            hub.requests.append(Request(self.command, path, self.headers.get("Range"), status))
            self.end_headers()
            if self.command == "GET":
                self._body(path, body)

        def _body(self, path: str, body: bytes) -> None:
            cut = _take(hub.drops, path)
            stalled = next((stall for ending, stall in hub.stalls.items() if path.endswith(ending)), None)
            if cut is None and stalled is not None and not stalled[1].is_set():
                cut = stalled[0]
            self.wfile.write(body[:cut])
            self.wfile.flush()
            if cut is not None:
                self.close_connection = True
                if stalled is not None:
                    stalled[1].wait(60)

    return Handler


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": etag(path, content)}
    if path.endswith(LFS):
        entry["oid"] = hashlib.sha1(content).hexdigest()
        entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 134}
    return entry


def main(arguments: list[str]) -> None:
    """Serve KIND=ID=FOLDER ... until interrupted."""
    with MiniHub() as hub:
        for argument in arguments:
            kind, name, folder = argument.split("=", 2)
            print(f"{kind} {name}@{hub.add(kind, name, Path(folder))}")
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
