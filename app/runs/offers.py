"""What the launch form offers in each of its fields that names something: what is there and fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.models import Dataset, Experiment, Run
from app.runs import states
from app.runs.forms import form_groups
from app.runs.inputs import WRITING_STAGES
from app.settings import Settings
from training.config import StageConfig
from training.model_files import NEW_SHAPES

MOST_RUNS, MOST_DATASETS = 50, 100


@dataclass(frozen=True)
class Offer:
    """One thing to choose. `experiment`: the only one whose runs may choose it; empty: any."""

    value: str
    label: str
    experiment: str = ""


@dataclass(frozen=True)
class Place:
    """Where is looked, and for the form of which stage."""

    session: Session
    settings: Settings
    kind: type[StageConfig]
    stage: str


def offers(session: Session, settings: Settings, kind: type[StageConfig], stage: str) -> dict[str, list[Offer]]:
    """A list for each kind of field (FormField.offers) that the form has."""
    place = Place(session, settings, kind, stage)
    wanted = {field.offers for group in form_groups(kind) for field in group.fields if field.offers}
    return {name: LISTS[name](place) for name in sorted(wanted)}


def _models(place: Place) -> list[Offer]:
    """Models to train from: of finished runs, and for SFT fresh ones."""
    fresh = NEW_SHAPES if place.stage == "sft" else {}
    shapes = [Offer(f"new:{name}", f"fresh, {it.hidden} wide, {it.layers} layers") for name, it in fresh.items()]
    return [*_finished(place, WRITING_STAGES), *shapes]


def _answerers(place: Place) -> list[Offer]:
    """Models that write: of finished runs, and behind endpoints."""
    return [*_finished(place, WRITING_STAGES), *_endpoints(place)]


def _judges(place: Place) -> list[Offer]:
    checker = Offer("checker", "the prompt's own reference decides")
    return [*_finished(place, {"reward"}), checker, *_endpoints(place)]


def _finished(place: Place, stages: Iterable[str]) -> list[Offer]:
    statement = select(Run).where(Run.state == states.FINISHED, col(Run.stage).in_(stages))
    found = place.session.exec(statement.order_by(col(Run.id).desc()).limit(MOST_RUNS))
    return [Offer(f"run:{run.id}", f"{run.name}, finished") for run in found]


def _endpoints(place: Place) -> list[Offer]:
    return [
        Offer(f"api:{name}/", "an endpoint of the settings: add the model's name") for name in place.settings.endpoints
    ]


def _responses(place: Place) -> list[Offer]:
    """Respond runs, by their names: only those of the same experiment are judged together."""
    statement = select(Run, Experiment.name).join(Experiment, col(Run.experiment_id) == col(Experiment.id))
    statement = statement.where(Run.stage == "respond", col(Run.state).not_in(states.UNSUCCESSFUL))
    found = place.session.exec(statement.order_by(col(Run.id).desc()).limit(4 * MOST_RUNS))
    return [Offer(f"run:{run.name}", f"{run.state}", owner) for run, owner in found]


def _datasets(place: Place) -> list[Offer]:
    """The data sets that the stage can read."""
    statement = select(Dataset).where(col(Dataset.kind).in_(place.kind.takes))
    found = place.session.exec(statement.order_by(col(Dataset.id).desc()).limit(MOST_DATASETS))
    return [Offer(f"data:{each.name}@{each.version}", f"{each.rows:,} {each.kind} rows") for each in found]


def _prompts(place: Place) -> list[Offer]:
    return [Offer("held_out", "what the experiment holds out of all training"), *_datasets(place)]


LISTS: dict[str, Callable[[Place], list[Offer]]] = {
    "models": _models, "answerers": _answerers, "judges": _judges, "responses": _responses, "datasets": _datasets,
    "prompts": _prompts,
}  # fmt: skip
