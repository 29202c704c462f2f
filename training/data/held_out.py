"""The prompts that an experiment holds out of all training: drawn once, by the first run that needs them, and kept.

The file: {"held_out": {"dataset", "seed", "n", "drawn", "distinct", "revision"}} in its first line, then a prompt a line:
{"prompt_id", "prompt": messages, "category"?, "reference"?}, in the order in which they were drawn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from training.commits import Commits
from training.data.examples import SetPrompt
from training.data.normal import digest
from training.data.sources import load_prompt_rows
from training.errors import InputError
from training.journal import Journal
from training.references import parse_reference
from training.rundir import HeldOut, RunDir, RunFile, sync_directory, temporary_beside


@dataclass(frozen=True)
class HeldOutSet:
    """What was drawn. `revision`: of a data set of the Hub, the commit that it was drawn from."""

    prompts: list[SetPrompt]
    dataset: str
    revision: str | None
    distinct: int  # prompts that the data set has
    sha256: str  # of the file


def held_out_prompts(run: RunFile, run_dir: RunDir, journal: Journal) -> list[SetPrompt]:
    """As `held_out_set`, the prompts alone. Raises InputError where the run's experiment holds none out."""
    found = held_out_set(run, run_dir, journal)
    if found is None:
        raise InputError(
            "The experiment holds no prompts out.",
            "Give its file a section held_out, or name another set of prompts.",
            field="prompts",
        )
    return found.prompts


def held_out_set(run: RunFile, run_dir: RunDir, journal: Journal) -> HeldOutSet | None:
    """What the run's experiment holds out, drawn now where no run has done so before; None where it holds nothing out.

    Of runs that draw at the same time the first one's file counts for all. Raises DataError, InputError, HubError.
    """
    wanted = run.held_out
    if wanted is None:
        return None
    path = Path(wanted.path)
    if not path.exists():
        _draw(wanted, path, run, run_dir, journal)
    found = read_held_out(wanted)
    prompts = f"{len(found.prompts):,} {'prompts' if len(found.prompts) != 1 else 'prompt'}"
    journal.log(f"{prompts} of {found.dataset} (it has {found.distinct:,} distinct ones) are held out of all training.")
    journal.artifact(
        "held-out prompts", found.dataset, file=path.name, sha256=found.sha256, rows=len(found.prompts),
        **({"revision": found.revision} if found.revision else {}),
    )  # fmt: skip
    return found


def _draw(wanted: HeldOut, path: Path, run: RunFile, run_dir: RunDir, journal: Journal) -> None:
    from training.files import disk_errors

    journal.status("drawing the held-out prompts")
    commits = Commits(run_dir.commits)
    prompts = load_prompt_rows(wanted.dataset, run.inputs, journal, commits, None, repeats=True)
    drawn, distinct = draw(prompts, wanted.n, wanted.seed)
    if wanted.n is not None and distinct < wanted.n:
        journal.log(
            f"{wanted.dataset} has {distinct:,} distinct prompts, fewer than the {wanted.n:,} to hold out: "
            "all of them are held out.",
            "warning",
        )
    head = {
        "dataset": wanted.dataset, "seed": wanted.seed, "n": wanted.n, "drawn": len(drawn), "distinct": distinct,
        "revision": commits.find("dataset", parse_reference(wanted.dataset)),
    }  # fmt: skip
    with disk_errors("the held-out prompts"):
        _write_first(path, [{"held_out": head}, *map(_row, drawn)])


def draw(prompts: Iterable[SetPrompt], n: int | None, seed: int) -> tuple[list[SetPrompt], int]:
    """n of the distinct prompts, all where n is None; and how many distinct ones there are.

    Which are drawn, and in what order, depends on their content and the seed, not on their places: each has a place
    of its own in a line of hashes, and the first n of the line are taken. A row more in the data set pushes out one
    at most. Of equal prompts the one that sorts first stands for all.
    """
    distinct: dict[bytes, SetPrompt] = {}
    for prompt in prompts:
        key = digest(prompt.messages)
        known = distinct.get(key)
        if known is None or _order(prompt) < _order(known):
            distinct[key] = prompt
    secret = seed.to_bytes(8, "little", signed=True)
    line = sorted(distinct, key=lambda key: hashlib.blake2b(key, digest_size=16, key=secret).digest())
    return [distinct[key] for key in line[:n]], len(distinct)


def _order(prompt: SetPrompt) -> bytes:
    return orjson.dumps(_row(prompt))


def _row(prompt: SetPrompt) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt_id": prompt.prompt_id, "prompt": prompt.messages}
    for name in ("category", "reference"):
        if (value := getattr(prompt, name)) is not None:
            row[name] = value
    return row


def _write_first(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the file whole, unless there is one by then: links, unlike renames, never replace."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.writelines(orjson.dumps(row) + b"\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return  # another run was first
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_held_out(wanted: HeldOut) -> HeldOutSet:
    """What was drawn before. Raises InputError where the file is damaged, or was drawn otherwise than is wanted now."""
    path = Path(wanted.path)
    try:
        content = path.read_bytes()
        head, *rows = map(orjson.loads, content.splitlines())
        head = head["held_out"]
        prompts = [
            SetPrompt(row["prompt_id"], row["prompt"], row.get("category"), row.get("reference")) for row in rows
        ]
        sha256 = hashlib.sha256(content).hexdigest()
        found = HeldOutSet(prompts, head["dataset"], head["revision"], head["distinct"], sha256)
        drawn = head["dataset"], head["n"], head["seed"]
        if len(prompts) != head["drawn"]:
            raise ValueError("some of its lines are missing")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: {str(error) or type(error).__name__}.",
            "Delete the file: the next run draws the same prompts from the same data.",
        ) from None
    if drawn != (wanted.dataset, wanted.n, wanted.seed):
        raise InputError(
            f"The experiment's held-out prompts were drawn as {_told(*drawn)}, and this run wants "
            f"{_told(wanted.dataset, wanted.n, wanted.seed)}.",
            "What is held out cannot change within an experiment: launch a new one.",
        )
    return found


def _told(dataset: str, n: int | None, seed: int) -> str:
    return f"{'all' if n is None else f'{n:,}'} of {dataset} with seed {seed}"
