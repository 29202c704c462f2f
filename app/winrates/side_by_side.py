"""Two models' answers to the same prompts, with what a judge said of them: one page of a prompt set.

First of all prompts what filters need, which is no text; then the texts of one page. The same few queries, however
many prompts, models and verdicts there are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import and_, or_
from sqlmodel import Session, col, func, select

from app.models import Experiment, Prompt, Response, Score, Verdict
from app.winrates.sets import PEOPLE
from app.winrates.stats import TIE

Outcome = Literal["won", "lost", "tied", "empty", "unjudged"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
PAGE_SIZE = 20
MOST_TEXT = 20_000  # characters of an answer or a turn that a page shows
LONG = 900  # characters from which on an answer is folded
LINES = 14  # or lines


@dataclass(frozen=True)
class Wanted:
    """Whose answers, and which of them. `outcome`: the first model's; empty: all."""

    prompts: str
    model: str
    baseline: str
    judge: str = ""
    outcome: str = ""
    category: str = ""
    page: int = 1


@dataclass(frozen=True)
class Text:
    """A text as far as a page shows it."""

    text: str
    left_out: int = 0  # characters behind it

    @property
    def long(self) -> bool:
        return len(self.text) > LONG or self.text.count("\n") > LINES


@dataclass(frozen=True)
class Answer:
    """One pane."""

    model: str
    text: Text
    characters: int
    empty: bool
    ended: bool | None
    tokens: int | None
    checkpoint: int | None
    score: float | None = None  # the judge's, of a judge that scores answers one by one


@dataclass(frozen=True)
class Opinion:
    """One verdict, as seen from the first model: 1 = its answer is better."""

    judge: str
    preference: float
    score: float | None
    baseline_score: float | None
    reason: str


@dataclass(frozen=True)
class Compared:
    """One prompt with both answers; None where a model gave none. `preference`: mean of all verdicts, or None."""

    key: int
    number: int  # among those that the filters let through, from 1
    prompt_id: str
    category: str
    turns: Sequence[tuple[str, Text]]  # (role, content)
    reference: str
    answer: Answer | None
    baseline: Answer | None
    preference: float | None
    opinions: Sequence[Opinion]

    @property
    def outcome(self) -> str:
        return outcome_of(self.preference)

    @property
    def long(self) -> bool:
        return any(each is not None and each.text.long for each in (self.answer, self.baseline))


@dataclass(frozen=True)
class Page:
    """One page; `counts`: prompts by outcome, and by category, among those of the other filter."""

    rows: Sequence[Compared]
    total: int  # that the filters let through
    page: int
    pages: int
    counts: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """What filters need to know of one prompt."""

    key: int
    category: str
    preference: float | None
    empty: bool

    def has(self, outcome: str) -> bool:
        return not outcome or (self.empty if outcome == "empty" else outcome_of(self.preference) == outcome)


def outcome_of(preference: float | None) -> Outcome:
    """As app.winrates.stats counts wins, losses and ties."""
    if preference is None:
        return "unjudged"
    return "won" if preference > 0.5 + TIE else "lost" if preference < 0.5 - TIE else "tied"


def read_page(session: Session, experiment: Experiment, wanted: Wanted) -> Page:
    """The page asked for, or the last one that there is."""
    places = _places(session, experiment, wanted)
    of_category = [each for each in places if not wanted.category or each.category == wanted.category]
    counts: Counter[str] = Counter(outcome_of(each.preference) for each in of_category)
    counts["empty"] = sum(each.empty for each in of_category)
    categories = Counter(each.category for each in places if each.category and each.has(wanted.outcome))
    found = [each for each in of_category if each.has(wanted.outcome)]
    pages = max(1, math.ceil(len(found) / PAGE_SIZE))
    page = min(max(1, wanted.page), pages)
    start = (page - 1) * PAGE_SIZE
    rows = _compared(session, wanted, found[start : start + PAGE_SIZE], start)
    return Page(rows, len(found), page, pages, counts, dict(sorted(categories.items())))


def _places(session: Session, experiment: Experiment, wanted: Wanted) -> list[_Place]:
    """The prompts that both models answered, or that were judged, in the set's order."""
    of_set = (Prompt.experiment_id == experiment.id, Prompt.set_name == wanted.prompts)
    pair = (wanted.model, wanted.baseline)
    columns = (Response.prompt_key, Response.model, Response.empty)
    statement = select(*columns).join(Prompt, col(Prompt.id) == Response.prompt_key)
    answered: dict[int, dict[str, bool]] = defaultdict(dict)
    for key, model, empty in session.exec(statement.where(*of_set, col(Response.model).in_(pair))):
        answered[key][model] = empty
    preferences = _preferences(session, of_set, wanted)
    both = {key for key, models in answered.items() if len(models) == len(set(pair))} | preferences.keys()
    prompts = session.exec(select(Prompt.id, Prompt.category).where(*of_set).order_by(col(Prompt.id)))
    return [
        _Place(key, category or "", preferences.get(key), any(answered.get(key, {}).values()))
        for key, category in prompts
        if key in both
    ]


def _preferences(session: Session, of_set: Iterable[Any], wanted: Wanted) -> dict[int, float]:
    """By prompt, as the first model has it: the mean of the judge's verdicts, and of what its scores say."""
    if not wanted.judge:
        return {}
    said: dict[int, list[float]] = defaultdict(list)
    statement = select(Verdict.prompt_key, Verdict.model_a, Verdict.preference)
    statement = statement.join(Prompt, col(Prompt.id) == Verdict.prompt_key).where(*of_set, *_verdicts_of(wanted))
    for key, first, preference in session.exec(statement.order_by(col(Verdict.id))):
        said[key].append(preference if first == wanted.model else 1 - preference)
    scores: dict[int, dict[str, float]] = defaultdict(dict)
    scored = select(Response.prompt_key, Response.model, Score.score).join(Score, col(Score.response_id) == Response.id)
    scored = scored.join(Prompt, col(Prompt.id) == Response.prompt_key).where(*of_set, Score.judge == wanted.judge)
    for key, model, score in session.exec(scored.where(col(Response.model).in_((wanted.model, wanted.baseline)))):
        scores[key][model] = score
    for key, each in scores.items():
        if len(each) == 2:
            gap = each[wanted.model] - each[wanted.baseline]
            said[key].append(1.0 if gap > 0 else 0.0 if gap < 0 else 0.5)
    return {key: sum(values) / len(values) for key, values in said.items()}


def _verdicts_of(wanted: Wanted) -> tuple[Any, Any]:
    a, b = col(Verdict.model_a), col(Verdict.model_b)
    pair = or_(
        and_(a == wanted.model, b == wanted.baseline),
        and_(a == wanted.baseline, b == wanted.model),
    )
    judge = col(Verdict.judge)
    return pair, judge.startswith(f"{PEOPLE}:") if wanted.judge == PEOPLE else judge == wanted.judge


def _compared(session: Session, wanted: Wanted, places: Sequence[_Place], start: int) -> list[Compared]:
    """The prompts of one page with all that is shown of them."""
    keys = [place.key for place in places]
    prompts = {each.id: each for each in session.exec(select(Prompt).where(col(Prompt.id).in_(keys)))}
    answers = _answers(session, wanted, keys)
    opinions = _opinions(session, wanted, keys)
    return [
        Compared(
            key=place.key,
            number=start + number,
            prompt_id=prompts[place.key].prompt_id,
            category=place.category,
            turns=_turns(prompts[place.key].messages),
            reference=(prompts[place.key].reference or "")[:MOST_TEXT],
            answer=answers.get((place.key, wanted.model)),
            baseline=answers.get((place.key, wanted.baseline)),
            preference=place.preference,
            opinions=opinions.get(place.key, []),
        )
        for number, place in enumerate(places, 1)
        if place.key in prompts
    ]


def _turns(messages: Sequence[Mapping[str, str]] | None) -> list[tuple[str, Text]]:
    return [
        (str(each.get("role", "")), Text(said[:MOST_TEXT], max(0, len(said) - MOST_TEXT)))
        for each in messages or ()
        for said in (str(each.get("content", "")),)
    ]


def _answers(session: Session, wanted: Wanted, keys: Sequence[int]) -> dict[tuple[int, str], Answer]:
    """By prompt and model. A very long text is cut in the database."""
    shown = func.substr(Response.text, 1, MOST_TEXT)
    told = (Response.characters, Response.empty, Response.ended, Response.tokens, Response.checkpoint)
    statement = select(Response.prompt_key, Response.model, shown, *told, Score.score)  # type: ignore[call-overload]
    statement = statement.outerjoin(
        Score, and_(col(Score.response_id) == Response.id, col(Score.judge) == wanted.judge)
    )
    statement = statement.where(
        col(Response.prompt_key).in_(keys), col(Response.model).in_((wanted.model, wanted.baseline))
    )
    return {
        (key, model): Answer(model, Text(text, max(0, characters - len(text))), characters, *rest)
        for key, model, text, characters, *rest in session.exec(statement)
    }


def _opinions(session: Session, wanted: Wanted, keys: Sequence[int]) -> dict[int, list[Opinion]]:
    """The verdicts on each prompt, as they were given, turned to the first model."""
    if not wanted.judge:
        return {}
    found: dict[int, list[Opinion]] = defaultdict(list)
    statement = select(Verdict).where(col(Verdict.prompt_key).in_(keys), *_verdicts_of(wanted))
    for each in session.exec(statement.order_by(col(Verdict.id))):
        scores = each.score_a, each.score_b
        preference = each.preference
        if each.model_a != wanted.model:
            scores, preference = scores[::-1], 1 - preference
        found[each.prompt_key].append(Opinion(each.judge, preference, *scores, each.reason))
    return found
