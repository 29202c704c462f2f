"""What a page of results is of: what its address asks for, else something sensible, with a word on why.

A command that is not told enough asks back (app/winrates/sets.py); a page shows something and lets one choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from sqlmodel import Session, col, func, select

from app.errors import AppError, NotFound
from app.models import Experiment, Prompt, Response, Score, Verdict
from app.winrates import sets


@dataclass(frozen=True)
class Asked:
    """What an address says: `?judge=..&baseline=..&prompts=..`. Empty: nothing."""

    judge: str = ""
    baseline: str = ""
    prompts: str = ""

    def query(self, **changes: Any) -> str:
        """The address's query, with some things changed; what is empty is left out."""
        said = {**vars(self), **changes}
        return urlencode({key: value for key, value in said.items() if value not in ("", None)})


@dataclass(frozen=True)
class Choice:
    """What is shown, and what there is to choose from. `judge` is empty where nobody has judged, `baseline` where
    nothing was compared. `notes`: where something else is shown than was asked for."""

    prompts: str
    judge: str = ""
    baseline: str = ""
    sets: Sequence[str] = ()
    judges: Sequence[str] = ()
    models: Sequence[str] = ()  # that the judge has an opinion on, most of all first
    notes: Sequence[str] = field(default_factory=list)

    @property
    def asked(self) -> Asked:
        """What an address must say to show the same again."""
        return Asked(self.judge, self.baseline, self.prompts if len(self.sets) > 1 else "")


def choose(session: Session, experiment: Experiment, asked: Asked) -> Choice | None:
    """Prompt set, judge and baseline. None where the experiment has neither answers nor verdicts."""
    choice = choose_judge(session, experiment, asked)
    if choice is None or not choice.judge:
        return choice
    notes = list(choice.notes)
    shown = own_baseline(experiment, choice.models) or choice.models[0]
    missing = asked.baseline or str(experiment.spec.get("baseline") or "")
    if asked.baseline in choice.models:
        shown = asked.baseline
    elif missing and missing != shown:
        who = f"{choice.judge} has said nothing of {missing[:100]} on these prompts"
        notes.append(f"{who}: the others are held against {shown}.")
    return replace(choice, baseline=shown, notes=notes)


def own_baseline(experiment: Experiment, models: Sequence[str]) -> str:
    """The experiment's own, where it is one of these models; else nothing."""
    own = str(experiment.spec.get("baseline") or "")
    return own if own in models else ""


def choose_judge(session: Session, experiment: Experiment, asked: Asked) -> Choice | None:
    """Prompt set and judge alone. None where the experiment has neither answers nor verdicts."""
    found = sets.prompt_sets(session, experiment)
    if not found:
        return None
    notes: list[str] = []
    prompts = asked.prompts if asked.prompts in found else found[0]
    if asked.prompts and asked.prompts != prompts:
        notes.append(f"There is no prompt set “{asked.prompts[:100]}” here: this is {prompts}.")
    try:
        there = sets.judges(session, experiment, prompts)
    except NotFound:
        return Choice(prompts, sets=found, notes=notes)
    judge, offered = _judge(experiment, there, asked.judge, notes), sets.pooled(there)
    offered = offered if judge in offered else [*offered, judge]
    models = _most_judged(session, experiment, prompts, judge)
    return Choice(prompts, judge, sets=found, judges=offered, models=models, notes=notes)


def _judge(experiment: Experiment, there: Sequence[str], wanted: str, notes: list[str]) -> str:
    """The one asked for, the experiment's own, or the first."""
    offered = sets.pooled(there)
    own = str(experiment.spec.get("primary_judge") or "")
    if wanted:
        try:
            return sets.choose_judge(experiment, there, wanted)
        except AppError:
            notes.append(f"“{wanted[:100]}” has judged nothing here.")
    try:
        return sets.choose_judge(experiment, there)
    except AppError:
        if own:
            notes.append(f"The experiment's own judge, {own}, has not judged these answers: this is {offered[0]}.")
        return offered[0]


def _most_judged(session: Session, experiment: Experiment, prompts: str, judge: str) -> list[str]:
    """The models that a judge has an opinion on, those with most opinions first, else by name."""
    of_set = (Prompt.experiment_id == experiment.id, Prompt.set_name == prompts)
    who = col(Verdict.judge).startswith(f"{sets.PEOPLE}:") if judge == sets.PEOPLE else col(Verdict.judge) == judge
    counted: Counter[str] = Counter()
    pairs = select(Verdict.model_a, Verdict.model_b, func.count()).join(Prompt, col(Prompt.id) == Verdict.prompt_key)
    for a, b, count in session.exec(pairs.where(*of_set, who).group_by(Verdict.model_a, Verdict.model_b)):
        counted[a] += count
        counted[b] += count
    scored = select(Response.model, func.count()).join(Score, col(Score.response_id) == Response.id)
    scored = scored.join(Prompt, col(Prompt.id) == Response.prompt_key).where(*of_set, Score.judge == judge)
    for model, count in session.exec(scored.group_by(Response.model)):
        counted[model] += count
    return sorted(counted, key=lambda model: (-counted[model], model))
