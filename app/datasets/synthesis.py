"""Data sets that augment runs made: the pairs of a finished run, and those of other thresholds afterwards.

A version says where it comes from: `facts` holds "made_by" (the run's id), "labelled_by" (its judge), "written_by",
"drawn_from", "thresholds", and "funnel" (what each filter took). Versions never change: another threshold makes another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson
from sqlmodel import Session

from app.datasets import service
from app.db import Database
from app.errors import Conflict, Invalid
from app.models import Dataset, Experiment, Run
from app.runs import service as runs
from app.settings import Settings
from training.augmenting.candidates import as_lines, read_candidates
from training.augmenting.funnel import Sifted, Thresholds, pair_row, sift
from training.augmenting.tally import funnel, nothing_left
from training.config import AugmentConfig, InvalidConfig, parse_config
from training.data.formats import DatasetFacts
from training.errors import DataError
from training.rundir import RunDir

NAMES = tuple(field.name for field in fields(Thresholds))


@dataclass(frozen=True)
class MadePairs:
    """A file of pairs that was checked and waits in the folder of the data sets, and what is known of where it comes from."""

    run_id: int
    path: Path
    found: DatasetFacts
    lineage: dict[str, Any]

    def take_in(self, session: Session, settings: Settings) -> Dataset:
        """Make it a version of `data:<experiment>-<run>`; the same pairs again are the same version again."""
        run = session.get_one(Run, self.run_id)
        owner = session.get_one(Experiment, run.experiment_id)
        origin = f"run {owner.name}/{run.name}"
        name = dataset_name(owner.name, run.name)
        dataset, new = service.place(session, settings, self.path, self.found, name, origin)
        if new:
            dataset.facts = {**dataset.facts, **self.lineage}
        return dataset


def dataset_name(experiment: str, run: str) -> str:
    """What a data set of a run is called: its experiment's and its own name, in the characters that a name may have."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", experiment).strip("-.") or "experiment"
    return f"{plain[: 99 - len(run)]}-{run}"[:100]


@contextmanager
def made_pairs(
    settings: Settings, run_id: int, config: AugmentConfig, rows: Iterable[bytes], counts: Mapping[str, Any]
) -> Iterator[MadePairs]:
    """Pairs on their way in; those that nobody took in are removed at the end. Raises Invalid, Unavailable.

    `rows`: the file's content in pieces; `counts`: its run's funnel (training/augmenting/tally.py).
    """
    lineage = {
        "made_by": run_id,
        "labelled_by": [config.judge_name],
        "written_by": config.model,
        "drawn_from": config.dataset,
        "thresholds": counts["thresholds"],
        "funnel": {name: counts[name] for name in ("prompts", "answers")},
    }
    with service.arrival(settings, "pairs.jsonl") as coming:
        for piece in rows:
            coming.write(piece)
        coming.finish()
        yield MadePairs(run_id, coming.path, service.checked(coming.path), lineage)


def refilter(database: Database, settings: Settings, run_id: int, thresholds: Mapping[str, Any]) -> Dataset:
    """Filter again what an augment run made, with some thresholds changed: a new version of its data set, in seconds.

    Nothing is generated or judged, and no version that is there changes. Raises NotFound, Invalid (`fields` by
    threshold), Conflict where the run has made nothing yet.
    """
    with database.read() as session:
        run = runs.get(session, run_id)
        name, stage, content, state = run.name, run.stage, run.config, run.state
    if stage != "augment":
        raise Invalid(f"“{name}” is a {stage} run: only an augment run has filters.", "Name an augment run.")
    config = _changed(content, thresholds)
    candidates = RunDir(settings.run_folder(run_id)).candidates
    if not candidates.is_file():
        raise Conflict(
            f"“{name}” is {state} and has no candidates to filter on this machine.",
            "Let it finish on this machine first.",
        )
    wanted = Thresholds.of(config)
    try:
        sifted = sift(read_candidates(candidates), wanted)
    except DataError as error:
        raise Invalid(error.failure.message, error.failure.hint) from None
    if all(each.reason is not None for each in sifted):
        failure = nothing_left(sifted, wanted).failure
        raise Invalid(failure.message, failure.hint, fields={failure.field: failure.hint} if failure.field else None)
    counts = funnel(sifted, wanted, config.judge_name)
    with made_pairs(settings, run_id, config, _rows(sifted), counts) as made, database.write() as session:
        return made.take_in(session, settings)


def _changed(content: Mapping[str, Any], thresholds: Mapping[str, Any]) -> AugmentConfig:
    unknown = [name for name in thresholds if name not in NAMES]
    if unknown:
        sentence = f"The thresholds are {', '.join(NAMES)}."
        raise Invalid(f"“{unknown[0][:60]}” is no threshold.", sentence, fields={unknown[0][:60]: sentence})
    try:
        config = parse_config({**content, **thresholds})
    except InvalidConfig as error:
        raise Invalid(str(error), fields=error.fields) from None
    assert isinstance(config, AugmentConfig)
    return config


def _rows(sifted: Iterable[Sifted]) -> Iterator[bytes]:
    for each in sifted:
        if each.reason is None:
            yield as_lines([pair_row(each)])


def made_by_run(settings: Settings, run_dir: RunDir) -> AbstractContextManager[MadePairs]:
    """The pairs that a finished run left, as `made_pairs` has them. Raises OSError, ValueError where they are not whole."""
    content = run_dir.read_config()
    config = parse_config(content.config)
    assert isinstance(config, AugmentConfig)
    counts = orjson.loads(run_dir.funnel.read_bytes())
    return made_pairs(settings, content.run_id, config, _pieces(run_dir.pairs), counts)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(service.BLOCK):
            yield piece
