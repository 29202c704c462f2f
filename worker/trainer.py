"""The training process: how it is started, what it may know, and how nothing of it is left."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from app.settings import Settings
from training.references import key_variable, parse_reference
from training.rundir import RunDir, RunFile, write_atomically
from training.worklog import DONE
from worker.devices import Device
from worker.processes import ProcessId, process_id, signal_group, started_with

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "training")
LOG_BYTES = 8 << 20  # of trainer.log, and as much again of the older trainer.log.1
MARK = "PREFLAB_ATTEMPT"  # "<attempt> <run directory>": in the environment of a trainer and of all that it starts

# A trainer learns these of the worker's environment and nothing else: above all no database, broker or token.
NAMES = {
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "TOKENIZERS_PARALLELISM"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("PREFLAB_FAILPOINT", "PREFLAB_THREADS"),
}
PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "KMP_", "GOMP_", "PYTORCH_", "TORCH_", "TRITON_")


class TrainerNote(ProcessId):
    """`process.json`: the trainer of an attempt, and what it found that a run can go on from."""

    attempt: int
    kept: list[str]


def environment(
    settings: Settings, device: Device, run_dir: RunDir, attempt: int, own: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, str]:
    """The trainer's environment: what is allowed of `own`, what the settings say, and the keys of its endpoints."""
    allowed = {name: value for name, value in own.items() if name in NAMES or name.startswith(PREFIXES)}
    allowed.update(keys)
    allowed[MARK] = f"{attempt} {run_dir.root}"
    allowed["CUDA_VISIBLE_DEVICES"] = device.uuid
    allowed["PYTHONUNBUFFERED"] = "1"
    if settings.threads:
        allowed["PREFLAB_THREADS"] = str(settings.threads)
    if settings.offline:
        allowed["HF_HUB_OFFLINE"] = "1"
    return allowed


def endpoint_keys(settings: Settings, content: RunFile) -> dict[str, str]:
    """The environment variables with the keys of the endpoints that a run asks, and of no others."""
    references = [parse_reference(text) for text, found in content.inputs.items() if found.url is not None]
    names = {reference.name.partition("/")[0] for reference in references}
    return {key_variable(name): key for name in names if (key := settings.endpoint_key(name))}


def start(
    settings: Settings, device: Device, run_dir: RunDir, content: RunFile, command: Sequence[str]
) -> subprocess.Popen[bytes]:
    """Start a trainer as the leader of a session of its own, and note which process it is. Raises OSError."""
    turn_log(run_dir)
    attempt, kept = content.attempt, sorted(progress_kept(run_dir))
    told = environment(settings, device, run_dir, attempt, os.environ, endpoint_keys(settings, content))
    with open(run_dir.log, "ab", opener=_private) as output:
        process = subprocess.Popen(
            [*command, str(run_dir.root), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=run_dir.root,
            env=told,
            start_new_session=True,
            umask=0o077,
        )
    try:
        identity = process_id(process.pid)
        if identity is not None:
            note = TrainerNote(**identity.model_dump(), attempt=attempt, kept=kept)
            write_atomically(run_dir.process, note.model_dump_json().encode())
    except BaseException:
        process.kill()
        process.wait()
        raise
    with contextlib.suppress(OSError):  # it may have ended already
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the model, and secrets
        # Where memory runs out, the trainer goes, not the database.
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
    return process


def read_note(run_dir: RunDir) -> TrainerNote | None:
    try:
        return TrainerNote.model_validate_json(run_dir.process.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def whole_checkpoints(run_dir: RunDir) -> set[str]:
    """The checkpoints that a run can go on from; one that is made anew counts as another."""
    found = set()
    for manifest in run_dir.checkpoints.glob("step-*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if orjson.loads(manifest.read_bytes())["full"]:
                found.add(f"{manifest.parent.name} {manifest.stat().st_ino}")
    return found


def progress_kept(run_dir: RunDir) -> set[str]:
    """What a run can go on from: its checkpoints, and how many of a long list of works are done."""
    with contextlib.suppress(FileNotFoundError), run_dir.work.open("rb") as file:
        return whole_checkpoints(run_dir) | {f"{sum(line.startswith(DONE) for line in file)} works"}
    return whole_checkpoints(run_dir)


def made_progress(run_dir: RunDir, attempt: int) -> bool:
    """Whether this attempt made something to go on from that was not there before it."""
    note = read_note(run_dir)
    return note is not None and note.attempt == attempt and bool(progress_kept(run_dir) - {"0 works", *note.kept})


def kill_leftover(run_dir: RunDir, attempt: int) -> None:
    """Kill what is left of attempts before this one on this machine. A stranger that has its pid now is spared."""
    note = read_note(run_dir)
    if note is not None and note.here and note.alive() and note.attempt < attempt:
        signal_group(note.pid, signal.SIGKILL)
    kill_marked(run_dir, range(attempt))


def kill_marked(run_dir: RunDir, attempts: Container[int]) -> None:
    """Kill what these attempts' trainers started, at once; also what has left their process groups."""
    for pid, mark in started_with(MARK):
        number, _, root = mark.partition(" ")
        if root == str(run_dir.root) and number.isdigit() and int(number) in attempts:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def turn_log(run_dir: RunDir) -> None:
    """Keep trainer.log within its size: its content moves to trainer.log.1, in place of what was there.

    The trainer holds the file open for appending, so it is copied and emptied, not renamed.
    """
    with contextlib.suppress(FileNotFoundError):
        if run_dir.log.stat().st_size > LOG_BYTES:
            shutil.copyfile(run_dir.log, run_dir.log.with_name(f"{run_dir.log.name}.1"))
            os.truncate(run_dir.log, 0)


def last_lines(run_dir: RunDir, count: int = 20) -> str:
    """The end of trainer.log, for the worker's own log. It may hold anything: never for a page."""
    try:
        with run_dir.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
