"""The page on which two models' answers stand side by side: ready values for templates/winrates/answers.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlmodel import Session, col, select

from app.models import Experiment, Prompt, Response
from app.winrates.choices import Asked, Choice, choose_judge, own_baseline
from app.winrates.makers import NOBODY, Maker, makers
from app.winrates.side_by_side import OUTCOMES, Compared, Page, Wanted, read_page

TITLES = {"": "all", "won": "won", "lost": "lost", "tied": "tied", "empty": "with an empty answer", "unjudged": "not judged"}  # fmt: skip


@dataclass(frozen=True)
class Filter:
    """One filter of the page, a link: how many prompts it lets through."""

    title: str
    count: int
    query: str
    chosen: bool


@dataclass(frozen=True)
class Reading:
    """One page of answers, and what there is to choose from."""

    choice: Choice
    model: str
    baseline: str
    models: Sequence[str]
    made: Mapping[str, Maker]
    page: Page
    outcome: str
    category: str
    outcomes: Sequence[Filter]
    categories: Sequence[str]
    notes: Sequence[str]
    asked: Asked

    @property
    def alone(self) -> bool:
        """One model is beside itself: its answers stand once."""
        return self.model == self.baseline

    @property
    def shown(self) -> Sequence[str]:
        return [self.model] if self.alone else [self.model, self.baseline]

    def maker(self, model: str) -> Maker:
        return made_by(self.made, model)

    def query(self, **changes: Any) -> str:
        """This page's address with some things changed."""
        now = {"model": self.model, "outcome": self.outcome, "category": self.category}
        return self.asked.query(**{**now, **changes})

    def verdict(self, found: Compared) -> str:
        """Who is better, in words."""
        if found.preference is None:
            return f"not judged by {self.choice.judge}" if self.choice.judge else "not judged"
        better = {"won": f"{self.model} is better", "lost": f"{self.baseline} is better"}.get(found.outcome, "a tie")
        votes = len(found.opinions)
        return (
            f"{better}: preference {found.preference:.2f} for {self.model}, mean of {votes} verdicts"
            if votes > 1
            else better
        )


def made_by(made: Mapping[str, Maker], model: str) -> Maker:
    return made.get(model, NOBODY)


def read(
    session: Session, experiment: Experiment, asked: Asked, model: str, outcome: str, category: str, page: int
) -> Reading | None:
    """None where the experiment has no answers. What is asked for and not there is named, and something else shown."""
    choice = choose_judge(session, experiment, asked)
    if choice is None:
        return None
    models = _models(session, experiment, choice)
    if not models:
        return None
    notes = list(choice.notes)
    usual = own_baseline(experiment, models) or next(iter(choice.models), models[0])
    baseline = _one_of(models, asked.baseline, usual, notes)
    others = [name for name in models if name != baseline]
    shown = _one_of(models, model, others[0] if others else baseline, notes)
    outcome = outcome if outcome in OUTCOMES else ""
    found = read_page(
        session, experiment, Wanted(choice.prompts, shown, baseline, choice.judge, outcome, category, page)
    )
    here = replace(choice.asked, baseline=baseline)
    return Reading(
        choice=choice,
        model=shown,
        baseline=baseline,
        models=models,
        made=makers(session, experiment, choice.prompts),
        page=found,
        outcome=outcome,
        category=category,
        outcomes=_filters(found, here, shown, outcome, category),
        categories=sorted({*found.categories, *([category] if category else [])}),
        notes=notes,
        asked=here,
    )


def _models(session: Session, experiment: Experiment, choice: Choice) -> list[str]:
    """Those that answered, and those that the judge has an opinion on."""
    statement = select(Response.model).join(Prompt, col(Prompt.id) == Response.prompt_key).distinct()
    statement = statement.where(Prompt.experiment_id == experiment.id, Prompt.set_name == choice.prompts)
    return sorted({*session.exec(statement), *choice.models})


def _one_of(models: Sequence[str], wanted: str, otherwise: str, notes: list[str]) -> str:
    if wanted in models:
        return wanted
    if wanted:
        notes.append(f"There are no answers of “{wanted[:100]}” here: these are of {otherwise}.")
    return otherwise


def _filters(page: Page, asked: Asked, model: str, outcome: str, category: str) -> list[Filter]:
    """All, and each outcome that there is."""
    counts = {"": sum(count for name, count in page.counts.items() if name != "empty"), **page.counts}
    return [
        Filter(title, counts.get(name, 0), asked.query(model=model, outcome=name, category=category), name == outcome)
        for name, title in TITLES.items()
        if counts.get(name, 0) or name in ("", outcome)
    ]
