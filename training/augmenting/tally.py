"""What the filters left, in numbers and in words: outputs/funnel.json, the run's log, and why nothing is left.

No torch here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from training.augmenting.funnel import (
    FATES,
    LOOSEST,
    REASONS,
    THRESHOLDS,
    NewPrompt,
    Reason,
    Sifted,
    Thresholds,
    reason_of,
)
from training.config import AugmentConfig
from training.errors import DataError

BINS = 50  # of a histogram of similarities from 0 to 1

REFILTER = "`preflab datasets refilter` tries that on what this run has made, and generates nothing again."

WORDS: dict[Reason, str] = {
    "empty": "empty prompts",
    "truncated": "prompts that were cut at the limit",
    "too few answers": "with fewer than two answers that can be used (the others are empty, cut, or were not judged)",
    "repetitive": "an answer repeats itself",
    "wrong script": "an answer is in another script than its prompt",
    "leaked": "ask what is held out, or nearly",
    "near-duplicate": "near-duplicates of the data's prompts or of earlier new ones",
    "alike": "the best and the worst answer are alike",
    "margin": "the two scores are too close together",
}
HINTS: dict[Reason, str] = {
    "empty": "The writer writes nothing: give it writing instructions that it can follow, or a text to go on with.",
    "truncated": "The writer does not end its prompts: raise max_new_tokens, or give it other writing instructions.",
    "too few answers": "Raise max_new_tokens so that answers can end, or draw more answers (candidates).",
    "repetitive": "Take a writer that repeats itself less.",
    "wrong script": "Take a writer that answers in the prompt's language.",
    "leaked": "The writer writes what is held out: give it other writing instructions, or hold out other prompts.",
    "near-duplicate": "The writer repeats the prompts that it is given: raise temperature, or give it other writing "
    "instructions.",
    "alike": "The writer gives one answer again and again: raise temperature.",
    "margin": "The judge tells no two answers apart: take another judge, draw more answers (candidates), or raise "
    "temperature.",
}
"""What helps where no threshold does."""


def funnel(sifted: Sequence[Sifted], thresholds: Thresholds, judge: str) -> dict[str, Any]:
    """The content of funnel.json. Counts by reason are in the order of the filters, and add up.

    "drawn": prompts of the data; "new": those written from them, or these themselves where none were to be written. A
    histogram's first bin holds what lies below it too.
    """
    answers = [fate for each in sifted for fate in each.fates]
    fates = Counter(answers)
    margins = [each.margin for each in sifted if each.reason is None and each.margin is not None]
    return {
        "judge": judge,
        "thresholds": asdict(thresholds),
        "prompts": {
            "drawn": len({each.prompt.source for each in sifted}),
            "new": len(sifted),
            "kept": len(margins),
            "dropped": {reason: count for reason, count in by_reason(sifted).items() if count},
        },
        "answers": {
            "drawn": len(answers),
            "kept": fates["chosen"] + fates["rejected"],
            "dropped": {fate: fates[fate] for fate in FATES[2:] if fates[fate]},
        },
        "similarities": {
            "prompts": _similarities([each.prompt.similarity for each in sifted], thresholds.max_prompt_similarity),
            "answers": _similarities(
                [each.prompt.answer_similarity for each in sifted], thresholds.max_answer_similarity
            ),
            "held_out": _similarities([each.prompt.leak_similarity for each in sifted], thresholds.max_leak_similarity),
        },
        "mean_margin": fmean(margins) if margins else None,
    }


def by_reason(sifted: Iterable[Sifted]) -> dict[Reason, int]:
    """How many prompts each filter took, all filters in their order."""
    counts = Counter(each.reason for each in sifted)
    return {reason: counts[reason] for reason in REASONS}


def _similarities(values: Iterable[float | None], threshold: float) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    counts = [0] * BINS
    for value in known:
        counts[min(BINS - 1, max(0, int(value * BINS)))] += 1
    return {"threshold": threshold, "count": len(known), "low": 0.0, "width": 1 / BINS, "counts": counts}


def in_words(sifted: Sequence[Sifted], thresholds: Thresholds) -> list[str]:
    """The funnel in sentences: what was kept, then what each filter took."""
    kept = sum(each.reason is None for each in sifted)
    said = [f"{kept:,} of {len(sifted):,} prompts {'gives' if kept == 1 else 'give'} a pair."]
    said += [f"Dropped: {_taken(reason, count, thresholds)}." for reason, count in by_reason(sifted).items() if count]
    return said


def nothing_left(sifted: Sequence[Sifted], thresholds: Thresholds) -> DataError:
    """Tells the funnel: which filter took how many, and which threshold to move."""
    counts = {reason: count for reason, count in by_reason(sifted).items() if count}
    told = "; ".join(_taken(reason, count, thresholds) for reason, count in counts.items())
    message = f"None of {len(sifted):,} prompts gives a pair: {told}."
    prompts = [each.prompt for each in sifted]
    saved = {
        name: _kept(prompts, replace(thresholds, **{name: getattr(LOOSEST, name)})) for name in THRESHOLDS.values()
    }
    name = max(saved, key=lambda each: saved[each])
    if saved[name]:
        return DataError(
            message, f"{_move(name, thresholds)}: up to {saved[name]:,} would be kept. {REFILTER}", field=name
        )
    together = _kept(prompts, LOOSEST)
    if together:
        names = [THRESHOLDS[reason] for reason in counts if reason in THRESHOLDS]
        moves = ". ".join(_move(each, thresholds) for each in names)
        return DataError(
            message, f"{moves}: with all filters open, {together:,} would be kept. {REFILTER}", field=names[0]
        )
    return DataError(message, HINTS[max(counts, key=lambda reason: counts[reason])])


def _kept(prompts: Sequence[NewPrompt], thresholds: Thresholds) -> int:
    return sum(reason_of(prompt, thresholds) is None for prompt in prompts)


def _move(name: str, thresholds: Thresholds) -> str:
    if name == "same_script":
        return "Set same_script to false"
    verb = "Lower" if name == "min_margin" else "Raise"
    return f"{verb} “{AugmentConfig.model_fields[name].title}” ({name}, now {_value(thresholds, name)})"


def _taken(reason: Reason, count: int, thresholds: Thresholds) -> str:
    name = THRESHOLDS.get(reason)
    return f"{count:,} {WORDS[reason]}" + (f" ({name} {_value(thresholds, name)})" if name else "")


def _value(thresholds: Thresholds, name: str) -> str:
    value = getattr(thresholds, name)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
