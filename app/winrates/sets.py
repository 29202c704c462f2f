"""Which prompt set, judge and baseline a table is of: what is asked for, else the experiment's, else the only one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import union
from sqlmodel import Session, col, select

from app.errors import Invalid, NotFound
from app.models import Experiment, Prompt, Response, Score, Verdict
from training.data.rows import MOST_NAME

HELD_OUT = "held_out"
IMPORTED = "imported"
PEOPLE = "human"  # all people pooled


def prompt_sets(session: Session, experiment: Experiment) -> list[str]:
    """The names of the experiment's prompt sets, the held-out one first."""
    found = session.exec(select(Prompt.set_name).where(Prompt.experiment_id == experiment.id).distinct()).all()
    return sorted(found, key=lambda name: (name != HELD_OUT, name))


def for_import(session: Session, experiment: Experiment, wanted: str = "") -> str:
    """The set that a file's rows belong to; where nothing is said, the only one, or the held-out one. Raises Invalid."""
    wanted = wanted.strip()
    if len(wanted) > MOST_NAME or not wanted.isprintable():
        sentence = f"Letters, digits and the like, {MOST_NAME} at most, on one line."
        raise Invalid(f"“{wanted[:60]}” cannot be a prompt set's name.", sentence, fields={"prompts": sentence})
    if wanted:
        return wanted
    found = prompt_sets(session, experiment)
    if len(found) > 1 and found[0] != HELD_OUT:
        raise Invalid(
            f"The experiment “{experiment.name}” has the prompt sets {_listed(found)}.", "Say which by --prompts."
        )
    if found:
        return found[0]
    return HELD_OUT if experiment.spec.get("held_out") else IMPORTED


def choose_set(session: Session, experiment: Experiment, wanted: str = "") -> str:
    """Raises NotFound where there is none, or none of this name; Invalid where there are several."""
    found = prompt_sets(session, experiment)
    if not found:
        raise NotFound(
            f"The experiment “{experiment.name}” has no answers and no verdicts yet.",
            "A respond run makes answers, a judge run verdicts; `preflab import` takes those made elsewhere.",
        )
    if wanted:
        return one_of(found, wanted, "prompt set", "--prompts")
    if found[0] != HELD_OUT and len(found) > 1:
        raise Invalid(f"“{experiment.name}” has several prompt sets: {_listed(found)}.", "Say which by --prompts.")
    return found[0]


def judges(session: Session, experiment: Experiment, set_name: str) -> list[str]:
    """Who judged answers of this set, each person too. Raises NotFound where nobody has."""
    of_set = (Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    voted = select(Verdict.judge).join(Prompt, col(Prompt.id) == col(Verdict.prompt_key)).where(*of_set)
    scored = select(Score.judge).join(Response, col(Response.id) == col(Score.response_id))
    scored = scored.join(Prompt, col(Prompt.id) == col(Response.prompt_key)).where(*of_set)
    found = sorted(row[0] for row in session.execute(union(voted, scored)))
    if not found:
        raise NotFound(
            f"Nobody has judged the answers of “{experiment.name}” yet.",
            "Launch a judge run, or `preflab import verdicts`.",
        )
    return found


def choose_judge(experiment: Experiment, found: Sequence[str], wanted: str = "") -> str:
    """A judge's name, or `human` for all people pooled. Raises NotFound, Invalid.

    What is asked for may be the kind alone (`reward`) or the name alone (`rm` for `reward:rm`), where only one fits.
    """
    offered = pooled(found)
    wanted = wanted or str(experiment.spec.get("primary_judge") or "")
    if not wanted:
        if len(offered) > 1:
            raise Invalid(f"“{experiment.name}” has several judges: {_listed(offered)}.", "Say which by --judge.")
        return offered[0]
    if wanted in offered or wanted in found:
        return wanted
    fitting = [name for name in found if wanted in name.split(":", 1)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise Invalid(f"“{wanted[:100]}” may be {_listed(fitting, 6)}.", "Say which by --judge, in full.")
    raise NotFound(f"There is no judge “{wanted[:100]}” here.", f"There are: {_listed(offered)}.")


def pooled(found: Sequence[str]) -> list[str]:
    """Judges to choose from: all people as one, first."""
    people = [name for name in found if name.startswith(f"{PEOPLE}:")]
    return [*([PEOPLE] if people else []), *(name for name in found if name not in people)]


def choose_baseline(experiment: Experiment, models: Sequence[str], wanted: str = "") -> str:
    """Raises NotFound, Invalid."""
    if wanted:
        return one_of(sorted(models), wanted, "model", "--baseline")
    own = str(experiment.spec.get("baseline") or "")
    if own in models:
        return own
    if len(models) == 2:  # either says the same
        return sorted(models)[0]
    raise Invalid(
        f"“{experiment.name}” names no baseline, and has {len(models)} models: {_listed(sorted(models))}.",
        "Say which the others are held against by --baseline.",
    )


def one_of(found: Sequence[str], wanted: str, what: str, option: str) -> str:
    """Raises NotFound, which says which there are. `option`: where a person says it."""
    if wanted in found:
        return wanted
    raise NotFound(f"There is no {what} “{wanted[:100]}” here.", f"{option} takes one of: {_listed(found)}.")


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
