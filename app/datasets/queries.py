"""Reading data sets: lists, one version, its first rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Text, cast
from sqlmodel import Session, col, select

from app.errors import NotFound
from app.models import Dataset, Experiment, Run
from app.runs.inputs import dataset_path
from app.settings import Settings
from training.config import STAGES
from training.data.examples import FLAWS, Message, pair_flaw
from training.data.lines import RowError, numbered_lines, parse_row
from training.data.rows import split_preference


def all_versions(session: Session) -> Sequence[Dataset]:
    """Newest first."""
    return session.exec(select(Dataset).order_by(col(Dataset.id).desc())).all()


def get(session: Session, name: str, version: int | None = None) -> Dataset:
    """One version, the latest where none is given. Raises NotFound."""
    statement = select(Dataset).where(Dataset.name == name).order_by(col(Dataset.version).desc())
    if version is not None:
        statement = statement.where(Dataset.version == version)
    found = session.exec(statement).first()
    if found is None:
        which = f"data:{name[:100]}" + (f"@{version}" if version is not None else "")
        raise NotFound(f"There is no data set {which}.", "The list of data sets shows what there is.")
    return found


def versions(session: Session, name: str) -> Sequence[int]:
    return session.exec(select(Dataset.version).where(Dataset.name == name).order_by(col(Dataset.version))).all()


def used_by(session: Session, dataset: Dataset) -> list[tuple[Run, str]]:
    """The runs whose config names this version, each with its experiment's name."""
    text = f'"data:{dataset.name}@{dataset.version}"'
    statement = (
        select(Run, Experiment.name).join(Experiment).where(cast(Run.config, Text).contains(text, autoescape=True))
    )
    return [(run, owner) for run, owner in session.exec(statement.order_by(col(Run.id)))]


def first_rows(settings: Settings, dataset: Dataset, count: int = 20) -> list[dict[str, Any]]:
    """The first rows of the file. Raises NotFound where the file is gone."""
    path = dataset_path(settings, dataset.sha256)
    if not path.exists():
        raise NotFound(
            f"The file of data:{dataset.name}@{dataset.version} is not on this machine.",
            f"It belongs at {path}; import it again under the same name.",
        )
    rows = []
    for _, line in islice(numbered_lines(path), count):
        try:
            rows.append(parse_row(line))
        except RowError:
            break  # the file was changed behind our back; `preflab doctor` and the trainer say so
    return rows


USED_BY = {kind: stage for stage, config in reversed(STAGES.items()) for kind in config.takes}
"""The first stage that uses a kind of data."""


def launch_link(dataset: Dataset) -> dict[str, str] | None:
    """Where to launch the first stage that uses a data set, and what that does to it; None where none does."""
    stage = USED_BY.get(dataset.kind)
    if stage is None:
        return None
    field, verb = ("prompts", "answer them") if stage == "respond" else ("dataset", "train on it")
    return {"address": f"/runs/new?stage={stage}&{field}=data:{dataset.name}@{dataset.version}", "verb": verb}


@dataclass(frozen=True)
class ShownPair:
    """A preference as its page shows it. `flaw`: why training leaves it out, or empty."""

    prompt: list[Message]
    answers: list[tuple[str, int, list[Message]]]  # "chosen" or "rejected", its characters, its turns
    flaw: str


def as_pair(row: dict[str, Any]) -> ShownPair | None:
    """A preference's row, None where it is another kind."""
    try:
        pair = split_preference(row) if "chosen" in row and "rejected" in row else None
    except RowError:
        return None  # the file was changed behind our back
    if pair is None:
        return None
    answers = [("chosen", pair.chosen), ("rejected", pair.rejected)]
    flaw = pair_flaw(pair)
    return ShownPair(
        pair.prompt,
        [(side, sum(len(turn["content"]) for turn in turns), turns) for side, turns in answers],
        FLAWS[flaw] if flaw else "",
    )


def as_json(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "version": dataset.version,
        "reference": f"data:{dataset.name}@{dataset.version}",
        "kind": dataset.kind,
        "rows": dataset.rows,
        "bytes": dataset.bytes,
        "sha256": dataset.sha256,
        "origin": dataset.origin,
        "created_at": dataset.created_at,
        "facts": dataset.facts,
    }
