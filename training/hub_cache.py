"""Files of the Hub in huggingface_hub's cache: pinned to a commit, resumable, each checked against its hash.

The library throws away what an interrupted download had got. So the bytes are fetched here, into the place where
the cache keeps them (`blobs/<etag>`), and a broken or killed download goes on with a Range request; the library
then finds them there and does the rest.
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, RepoFile, constants, get_cached_repo_tree, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from training.commits import Commits
from training.errors import HubError
from training.journal import Journal
from training.references import Reference
from training.throttle import Throttle

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each new try, after tries that brought no byte


@dataclass(frozen=True)
class Repo:
    """One repository at one commit, and the files in it."""

    id: str
    type: str  # "model" or "dataset"
    commit: str
    files: dict[str, tuple[int, str]]  # path: bytes, etag (SHA-256 of LFS files, else git's blob id)

    @property
    def name(self) -> str:
        return f"{'data set' if self.type == 'dataset' else 'model'} {self.id}"

    @property
    def folder(self) -> Path:
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.id, repo_type=self.type)

    def missing(self, paths: list[str]) -> list[str]:
        """Those of these files that the local cache lacks."""
        return [path for path in paths if not (self.folder / "snapshots" / self.commit / path).exists()]


def open_repo(reference: Reference, kind: str, commits: Commits) -> Repo:
    """Resolve the revision to a commit, once in a run, and list the files: on the Hub, else in the cache."""
    api = HfApi()

    def ask() -> str:
        return str(api.resolve_revision(reference.name, repo_type=kind, revision=reference.version).resolved)

    revision = commits.resolve(kind, reference, ask)
    try:
        tree = list(api.list_repo_tree(reference.name, repo_type=kind, revision=revision, recursive=True))
    except RevisionNotFoundError as error:
        raise HubError(
            f"{reference} has no commit {revision[:12]} any more, which this run began with.",
            "Retry the run from nothing: it then takes what is there now.",
        ) from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        try:
            tree = list(get_cached_repo_tree(reference.name, repo_type=kind, revision=revision))
        except CachedRepoTreeNotFoundError:
            raise error from None
    files = {
        entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
        for entry in tree
        if isinstance(entry, RepoFile)
    }
    return Repo(reference.name, kind, revision, files)


def fetch(repo: Repo, paths: list[str], journal: Journal) -> Path:
    """The folder of the snapshot, with these files in it; only what the cache lacks is downloaded, small files first."""
    for path in sorted(repo.missing(paths), key=lambda path: repo.files[path][0]):
        if constants.is_offline_mode():
            raise HubError(
                f"{repo.name}: {path} is not in the local cache, and HF_HUB_OFFLINE is set.",
                "Unset HF_HUB_OFFLINE and resume, or copy the cache from a machine that has it.",
            )
        _fetch_blob(repo, path, journal)
    if not repo.missing(paths):
        return repo.folder / "snapshots" / repo.commit
    return Path(
        snapshot_download(
            repo.id, repo_type=repo.type, revision=repo.commit, allow_patterns=[glob.escape(path) for path in paths]
        )
    )


def _fetch_blob(repo: Repo, path: str, journal: Journal) -> None:
    """Bring one file's bytes into the cache, going on where an earlier try ended. One process at a time."""
    size, etag = repo.files[path]
    blob = repo.folder / "blobs" / etag
    part = blob.with_name(f"{etag}.preflab.incomplete")
    lock = repo.folder.parent / ".locks" / repo.folder.name / f"{etag}.lock"  # the library's own
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        with part.open("ab", buffering=0) as file:
            _fetch_bytes(repo, path, file, _reporter(journal, path, size))
            os.fsync(file.fileno())
        if _hash(part, etag) != etag:
            part.unlink()
            raise HubError(f"{repo.name}: {path} arrived damaged.", "Resume the run: the file is fetched again.")
        part.replace(blob)


def _fetch_bytes(repo: Repo, path: str, file: Any, report: Callable[[int], None]) -> None:
    """Append to `file` until it is whole. Break-offs are tried again, up to len(WAITS) times without a new byte."""
    size = repo.files[path][0]
    waits = iter(WAITS)
    while (have := file.seek(0, os.SEEK_END)) < size:
        broken: HTTPError | None = None
        try:
            _stream(repo, path, file, have, report)
        except HTTPError as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            broken = error
        if (now := file.seek(0, os.SEEK_END)) >= size:
            break
        if now > have:
            waits = iter(WAITS)
        wait = next(waits, None)
        if wait is None:
            raise HubError(
                f"{repo.name}: the download of {path} broke off after {now:,} of {size:,} bytes.",
                "Resume the run when the connection is back: the download goes on from there.",
            ) from broken
        time.sleep(wait)


def _stream(repo: Repo, path: str, file: Any, have: int, report: Callable[[int], None]) -> None:
    url = hf_hub_url(repo.id, path, repo_type=repo.type, revision=repo.commit)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        if have and response.status_code != 206:
            file.truncate(0)  # the server knows no ranges
            have = 0
        report(have)
        for chunk in response.iter_bytes():
            file.write(chunk)
            have += len(chunk)
            report(have)


def _reporter(journal: Journal, path: str, size: int) -> Callable[[int], None]:
    throttle = Throttle()

    def report(done: int) -> None:
        if throttle.ready() or done == size:
            journal.progress(f"downloading {path}", done, size, "bytes")

    return report


def _hash(path: Path, etag: str) -> str:
    """The file's hash in the etag's kind: SHA-256 where it has 64 digits, git's blob id where it has 40."""
    if len(etag) == 64:
        digest = hashlib.sha256()
    elif len(etag) == 40:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return etag
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
