"""What the curves of pairs say, for dpo and reward: ranking, log-probabilities, clamped margins, calibration."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from app.runs.health.evidence import Evidence
from app.runs.health.finding import Finding, number, percent
from app.runs.health.points import EVALS, Points

# Thresholds; docs/health.md says why.
SATURATED = 0.99  # accuracy on the training batches
GAP_NOTE, GAP_WARNING = 0.15, 0.25  # train accuracy minus eval accuracy
CHANCE_STEPS = 100  # after the warm-ups: before, chance is no news
Z = 1.96  # 95 %
FALL_NOTE, FALL_WARNING = 0.25, 0.5  # of the chosen answer's log-probability at the start
FALL_STEEP, FALL_RATIO = 0.2, 3.0  # a lesser fall warns where it is so many times what the margin grew
FALL_LEAST = 5.0  # nats: below, even a short answer has not become improbable
RISE_REJECTED = 0.05  # of its log-probability at the start
CLAMPED_NOTE, CLAMPED_WARNING = 0.2, 0.5  # share of pairs
CALIBRATION = 0.1  # expected calibration error
CALIBRATION_BINS = 10
DRIFT = 3.0  # times the margin, and in the rewards' own unit: how far the mean reward may go from its start


def read_pairs(run: Evidence) -> list[Finding]:
    """One sentence each on ranking and likelihood, and one for each thing that is odd."""
    told = [_ranking(run)]
    if run.stage == "dpo":
        told += [_likelihood(run), _rejected_rising(run), _clamped(run)]
    else:
        told += [_calibration(run), _drift(run)]
    return [each for each in told if each]


# ---- accuracy


def _ranking(run: Evidence) -> Finding | None:
    evals, train = run["eval_accuracy"].behind(0), run["accuracy"].behind(run.warm)
    if len(evals) < EVALS:
        return _saturated(run, _mean(train, train.window), None)
    accuracy = evals.latest()
    train = train.upto(evals.last_step)  # what is said changes with an eval, not from step to step
    spanned = len(train.behind(int(evals.step[-EVALS])))  # the steps that the evals' median is of, too
    return (
        _gap(run, _mean(train, max(spanned, train.window)), accuracy)
        or _saturated(run, _mean(train, train.window), accuracy)
        or _beside_chance(run, accuracy, evals.last_step)
        or Finding(
            "eval_accuracy", "good", "Ranks pairs it has not seen",
            f"Of the pairs held back, {percent(accuracy)} are ranked right{_uncertainty(run, accuracy)}.",
            step=evals.last_step,
        )
    )  # fmt: skip


def _mean(train: Points, count: int) -> float | None:
    """Over the latest `count` steps, where there are so many."""
    return float(train.value[-count:].mean()) if len(train) >= count else None


def half_width(accuracy: float, pairs: int) -> float:
    """Half of the 95 % interval of a share (normal approximation)."""
    return Z * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / pairs)


def _uncertainty(run: Evidence, accuracy: float) -> str:
    if not run.pairs:
        return ""
    return f" (± {100 * half_width(accuracy, run.pairs):.0f} points; {run.pairs:,} pairs)"


def _gap(run: Evidence, trained: float | None, accuracy: float) -> Finding | None:
    if trained is None:
        return None
    allowance = half_width(0.5, run.pairs) if run.pairs else 0.05
    gap = trained - accuracy
    if gap < GAP_NOTE + allowance:
        return None
    return Finding(
        "accuracy", "warning" if gap >= GAP_WARNING + allowance else "note", "Ranks what it has seen",
        f"{percent(trained)} of the training pairs are ranked right, but {percent(accuracy)} of those held back"
        f"{_uncertainty(run, accuracy)}: it learns these pairs by heart.",
        "Fewer epochs, a lower learning_rate, or more and more varied pairs. The best checkpoint is kept.",
        run["accuracy"].last_step,
    )  # fmt: skip


def _saturated(run: Evidence, trained: float | None, accuracy: float | None) -> Finding | None:
    if trained is None or trained < SATURATED:
        return None
    held_back, advice = (
        "",
        "Nothing needs doing while eval_loss falls; once it does not, fewer epochs or steps are enough.",
    )
    if accuracy is None:
        advice = "Hold pairs back (eval_fraction) to see whether it holds for others, too."
    elif accuracy >= SATURATED:
        held_back = f", and so are {percent(accuracy)} of those held back"
        advice = "Read some pairs: a give-away such as length or layout may tell chosen from rejected. Harder pairs teach more."
    else:
        held_back = f"; of those held back, {percent(accuracy)}{_uncertainty(run, accuracy)}"
    return Finding(
        "accuracy", "note", "Saturated",
        f"The latest training batches are ranked right to {percent(trained)}{held_back}. That is no error by itself, but "
        "pairs that are ranked right and by far teach next to nothing.",
        advice, run["accuracy"].last_step,
    )  # fmt: skip


def _beside_chance(run: Evidence, accuracy: float, step: int) -> Finding | None:
    """Where the interval around 0.5 covers the accuracy, or the accuracy lies below it. Unknown pairs: no word."""
    if not run.pairs or step < run.warm + CHANCE_STEPS:
        return None
    chance = half_width(0.5, run.pairs)
    if accuracy < 0.5 - chance:
        return Finding(
            "eval_accuracy", "warning", "Ranks the wrong way round",
            f"Only {percent(accuracy)} of the {run.pairs:,} pairs held back are ranked right: worse than chance.",
            "Look whether chosen and rejected are swapped in the data; else lower learning_rate.", step,
        )  # fmt: skip
    if accuracy > 0.5 + chance:
        return None
    return Finding(
        "eval_accuracy", "note", "Not told from chance",
        f"{percent(accuracy)} of the {run.pairs:,} pairs held back are ranked right. Chance alone gives 50 ± "
        f"{100 * chance:.0f} % with so few.",
        f"If it stays so, raise learning_rate or give it more steps; a larger eval_fraction ({run.setting('eval_fraction')}) "
        "would tell more.",
        step,
    )  # fmt: skip


# ---- log-probabilities


class Moved(NamedTuple):
    """How far the mean log-probabilities have moved since the start, in nats an answer."""

    start: float  # of chosen
    chosen: float
    rejected: float
    step: int
    metric: str


def moved(run: Evidence) -> Moved | None:
    """By eval; without it by the train rewards, whose log-ratios do not depend on how long a batch's answers are."""
    chosen, rejected = run["eval_logp_chosen"], run["eval_logp_rejected"]
    if len(chosen) > EVALS and len(rejected) > EVALS:
        return Moved(
            chosen.start, chosen.latest() - chosen.start, rejected.latest() - rejected.start, chosen.last_step,
            "eval_logp_chosen",
        )  # fmt: skip
    train, other, level = run["reward_chosen"], run["reward_rejected"], run["logp_chosen"]
    beta = run.setting("beta")
    if len(chosen) or len(train) < 2 * train.window or not len(level) or not beta:
        return None
    first = float(np.median(level.value[: level.window]))
    return Moved(first, _gained(train) / beta, _gained(other) / beta, train.last_step, "logp_chosen")


def _gained(rewards: Points) -> float:
    return rewards.settled - float(np.median(rewards.value[:5]))


def _likelihood(run: Evidence) -> Finding | None:
    """Whether the chosen answers lose probability, and whether it pays."""
    found = moved(run)
    if found is None:
        return None
    fall, grown = -found.chosen, found.chosen - found.rejected
    share = fall / max(abs(found.start), 1e-9)
    steep = share >= FALL_STEEP and fall > FALL_RATIO * max(grown, 0.0)
    if fall >= FALL_LEAST and (share >= FALL_WARNING or steep):
        return _displaced(run, found, share, "warning")
    if fall >= FALL_LEAST and share >= FALL_NOTE:
        return _displaced(run, found, share, "note")
    if grown <= 0:
        return None
    chosen = f"chosen {_way(found.chosen)}, rejected {_way(found.rejected)}"
    usual = " That both fall is usual for DPO, within bounds." if found.chosen < 0 and found.rejected < 0 else ""
    return Finding(
        found.metric, "good", "Chosen and rejected part",
        f"Since the start, nats an answer: {chosen}. Chosen stood at {number(found.start)}.{usual}", step=found.step,
    )  # fmt: skip


def _way(nats: float) -> str:
    return f"{'rose' if nats > 0 else 'fell'} by {number(abs(nats))}"


def _displaced(run: Evidence, found: Moved, share: float, level: str) -> Finding:
    """Likelihood displacement (Razin et al. 2024)."""
    grown = found.chosen - found.rejected
    sentence = (
        f"The chosen answers have lost {number(-found.chosen)} nats of log-probability, {percent(share)} of what they had "
        f"({number(found.start)} at the start); the margin grew by {number(grown)}."
    )
    if level == "note":
        more = " Falls with the margin are usual for DPO; this is a long way."
        return Finding(
            found.metric, "note", "Chosen falls", sentence + more,
            f"Read the samples. To stay nearer to the reference, raise beta ({run.setting('beta'):g}).", found.step,
        )  # fmt: skip
    return Finding(
        found.metric, "warning", "Likelihood displacement",
        sentence + " What they lose goes to answers that are in no pair.",
        f"Read the samples. Raise beta ({run.setting('beta'):g}), lower learning_rate ({run.setting('learning_rate'):g}) "
        "or take fewer steps; leave out pairs whose answers are nearly the same.",
        found.step,
    )  # fmt: skip


def _rejected_rising(run: Evidence) -> Finding | None:
    found = moved(run)
    rejected = run["eval_logp_rejected"]
    if found is None or found.metric != "eval_logp_chosen" or found.rejected < FALL_LEAST:
        return None
    if found.rejected < RISE_REJECTED * abs(rejected.start):
        return None
    better = found.chosen > found.rejected
    return Finding(
        "eval_logp_rejected", "note", "Rejected rises",
        f"The rejected answers have become likelier by {number(found.rejected)} nats (chosen: by {number(found.chosen)}). "
        + ("The model still learns to write such answers at all." if better else "The margin shrinks."),
        "Train it on the chosen answers first (sft), then run dpo from there." if better
        else "Look whether chosen and rejected are swapped; else lower learning_rate.",
        found.step,
    )  # fmt: skip


# ---- margins, calibration, rewards


def _clamped(run: Evidence) -> Finding | None:
    clamped, limit = run["clamped"].behind(run.warm), run.setting("margin_clamp")
    if limit is None or len(clamped) < clamped.window:
        return None
    share = float(clamped.value[-clamped.window :].mean())
    if share < CLAMPED_NOTE:
        return None
    return Finding(
        "clamped", "warning" if share >= CLAMPED_WARNING else "note", "Pairs that teach nothing",
        f"{percent(share)} of the pairs of the latest {clamped.window} steps lie beyond the margin clamp (± {limit:g} nats). "
        "They have no gradient any more, and those that are ranked worst have none either.",
        "The run has done most of what it can: stop it, or raise margin_clamp (or leave it empty) in the next one.",
        clamped.last_step,
    )  # fmt: skip


def _calibration(run: Evidence) -> Finding | None:
    errors = run["eval_calibration_error"].behind(0)
    if len(errors) < EVALS:
        return None
    error = errors.latest()
    # A perfect model's error on n pairs in b bins is about 0.8 sqrt(p (1 - p) b / n) where the bins are equally full, and
    # less elsewhere: at most this.
    allowance = 0.4 * math.sqrt(CALIBRATION_BINS / run.pairs) if run.pairs else 0.05
    if error < CALIBRATION + allowance:
        return None
    accuracy, loss = run["eval_accuracy"], run["eval_loss"]
    over = len(accuracy) and len(loss) and loss.latest() > entropy(accuracy.latest())
    return Finding(
        "eval_calibration_error", "warning" if over else "note", "Too sure" if over else "Badly calibrated",
        f"How sure it is and how often it is right differ by {100 * error:.0f} points on average"
        + (
            f": at {percent(accuracy.latest())} right, an honest model's loss would be {number(entropy(accuracy.latest()))} "
            f"at most, and it is {number(loss.latest())}." if over else "."
        ),
        "Fewer epochs, a lower learning_rate or more pairs. Its ranking may still be right; its probabilities are not.",
        errors.last_step,
    )  # fmt: skip


def entropy(share: float) -> float:
    """The loss of one who always says this share, and is right so often. Nats."""
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def _drift(run: Evidence) -> Finding | None:
    chosen, rejected, margin = run["eval_reward_chosen"], run["eval_reward_rejected"], run["eval_margin"]
    if min(len(chosen), len(rejected), len(margin)) <= EVALS:
        return None
    went = (chosen.latest() + rejected.latest() - chosen.start - rejected.start) / 2
    if abs(went) < max(DRIFT, DRIFT * abs(margin.latest())):
        return None
    return Finding(
        "eval_reward_chosen", "note", "Rewards drift",
        f"The mean reward has moved by {went:+.1f} since the start, with a margin of {number(margin.latest())}. The loss "
        "sees differences alone, so no ranking suffers; single rewards of two runs cannot be compared.",
        "Nothing, where answers are compared with each other. weight_decay keeps rewards nearer to 0.", chosen.last_step,
    )  # fmt: skip
