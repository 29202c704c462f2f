"""What loss and gradient say, at any stage: learning, levelling off, overfitting, jumping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.runs.health.evidence import Evidence
from app.runs.health.finding import Finding, Level, at, number
from app.runs.health.points import EVALS, TO_SIGMA, Array, Points

# Thresholds; docs/health.md says why.
LEAST_EVALS = 4  # the start, and three more: fewer make no median
NO_EVAL_STEPS = 50  # steps after which a run without eval is told so
RISE_NOTE, RISE_WARNING = 0.01, 0.03  # of the best eval loss: how far above it the latest ones lie
RISE_NOISE = 4.0  # and how many times the evals' own noise
BEGUN = 0.02  # of the way from chance to the least possible loss: less is no learning
TRAIN_BEGUN = 0.05  # of the same way: a train loss that went further has learned, if only its own pairs
PATIENT_STEPS = 200  # after the warm-ups: not having begun is worth a warning only then
FALL_LEAST = 0.01  # of the first eval loss
LEVEL_EVALS = 5  # evals over which it must have stood still
LEVEL_SHARE = 0.02  # of all that it fell
NEAR_ZERO = 0.05  # nats: the train loss of a model that is sure of every pair, or knows its texts by heart
RECENT = 2000  # steps that are searched for jumps
BEFORE = 31  # steps that a jump is held against
JUMP_NOISE, JUMP_LEAST, JUMP_STEPS = 10.0, 0.25, 3  # times the noise, of the level, steps in a row
BACK = 20  # steps after a jump by which it should be over
BURST = 10.0  # times the median of the gradient norm
BURST_STEPS, BURST_WINDOW = 5, 200  # so many of the latest so many


def read_loss(run: Evidence) -> list[Finding]:
    """One sentence on how the loss goes, and one each for what else is odd."""
    course = _worse(run) or _overfit(run) or _not_begun(run) or _falling(run) or _no_eval(run)
    return [each for each in (course, _near_zero(run), _jump(run), _bursts(run)) if each]


def _worse(run: Evidence) -> Finding | None:
    """Above where it began, and never below since."""
    evals = run["eval_loss"]
    if len(evals) < LEAST_EVALS or int(np.argmin(evals.value)) > 0:
        return None
    rise = evals.latest() - evals.start
    if rise < max(RISE_WARNING * evals.start, RISE_NOISE * evals.noise()):
        return None
    wrong_way = " Look also whether chosen and rejected are the right way round." if run.prefers else ""
    return Finding(
        "eval_loss", "warning", "Worse than at the start",
        f"The eval loss is {number(evals.latest())}, above the {number(evals.start)} of step 0: the run makes the model "
        "worse on what it is not trained on.",
        f"Lower learning_rate ({run.setting('learning_rate'):g}), or lengthen warmup_steps.{wrong_way}",
        evals.last_step,
    )  # fmt: skip


def _overfit(run: Evidence) -> Finding | None:
    """A best eval that lies behind, and a rise since that is more than noise. Step 0 is no candidate for the best."""
    evals = run["eval_loss"].behind(0)
    if len(evals) < LEAST_EVALS:
        return None
    best = int(np.argmin(evals.value))
    rise = evals.latest() - float(evals.smooth().min())
    low = max(float(evals.value[best]), 1e-9)
    if len(evals) - 1 - best < EVALS or rise < max(RISE_NOTE * low, RISE_NOISE * evals.noise()):
        return None
    step = int(evals.step[best])
    meanwhile, trained = "", _train_fell_since(run, step)
    if trained:
        meanwhile = f", while the train loss fell on from {number(trained[0])} to {number(trained[1])}: it overfits"
    ranks = ""
    accuracy = run["eval_accuracy"]
    if run.prefers and len(accuracy) and accuracy.latest() >= accuracy.upto(step).latest(1):
        ranks = " It ranks the pairs no worse, but is too sure of those that it ranks wrong."
    return Finding(
        "eval_loss", "warning" if rise >= RISE_WARNING * low else "note", "Overfitting" if trained else "Eval loss rises",
        f"The best eval loss was {number(float(evals.value[best]))} at {at(step)}; it has risen to "
        f"{number(evals.latest())} since{meanwhile}.{ranks}",
        _after_the_best(run),
        step,
    )  # fmt: skip


def _after_the_best(run: Evidence) -> str:
    kept = "The best checkpoint is kept and becomes the model. "
    patience = run.setting("early_stopping_patience")
    if patience is None:
        return kept + "To end sooner, set early_stopping_patience (3, say); or fewer epochs, or a lower learning_rate."
    return kept + f"early_stopping_patience ({patience}) ends the run by itself; fewer epochs would do the same."


def _train_fell_since(run: Evidence, step: int) -> tuple[float, float] | None:
    """The train loss around a step and now, where it fell by more than a hundredth."""
    losses = run["loss"].behind(run.warm)
    before, since = losses.upto(step), losses.behind(step)
    if len(before) < 5 or len(since) < 5:
        return None
    then, now = before.latest(losses.window), since.latest(losses.window)
    return (then, now) if now < 0.99 * then else None


def _not_begun(run: Evidence) -> Finding | None:
    """Eval is still at the loss of chance: because nothing is learned, or only by heart."""
    evals = run["eval_loss"].behind(run.warm)
    if not run.prefers or len(evals) < EVALS:
        return None
    learned = run.chance - evals.latest()
    if learned >= BEGUN * (run.chance - run.floor) or evals.latest() > 1.05 * run.chance:
        return None
    level: Level = "warning" if evals.last_step >= run.warm + PATIENT_STEPS else "note"
    still = f"At {at(evals.last_step)} the eval loss is {number(evals.latest())}, still that of chance ({number(run.chance)})"
    trained = run["loss"].behind(run.warm).upto(evals.last_step)
    if len(trained) >= trained.window and trained.settled < run.chance - TRAIN_BEGUN * (run.chance - run.floor):
        return Finding(
            "eval_loss", level, "Eval stays at chance",
            f"{still}, while the train loss has fallen to {number(trained.settled)}: what it learns of its own pairs does "
            "not hold for others.",
            f"More and more varied pairs help most; else a lower learning_rate ({run.setting('learning_rate'):g}), or "
            "fewer epochs.",
            evals.last_step,
        )  # fmt: skip
    lora = " LoRA wants about ten times the learning rate of full training." if run.setting("lora_rank") else ""
    return Finding(
        "eval_loss", level, "Has not begun to learn", f"{still}.{_floor_words(run)}",
        f"Raise learning_rate ({run.setting('learning_rate'):g}) three- to tenfold, or give it more steps.{lora}",
        evals.last_step,
    )  # fmt: skip


def _floor_words(run: Evidence) -> str:
    """What a small beta with a clamp does to the scale of the loss."""
    if run.floor < 0.1:
        return ""
    why = "margin_clamp and beta" if run.setting("margin_clamp") else "label_smoothing"
    return f" With this {why} it cannot fall below {number(run.floor)}."


def _falling(run: Evidence) -> Finding | None:
    evals = run["eval_loss"]
    if len(evals) < LEAST_EVALS:
        return None
    fell = evals.start - evals.latest()
    least = BEGUN * (run.chance - run.floor) if run.stage == "dpo" else FALL_LEAST * evals.start
    if fell < max(least, 2 * evals.noise()):
        return None
    levelled, advice = _level(evals, fell), ""
    where = f" by {at(evals.last_step)}"
    if levelled is not None:
        where += f", and has hardly moved since {at(levelled)}"
        advice = "Further steps gain little at this learning rate."
        if run.setting("early_stopping_patience") is None:
            advice += " early_stopping_patience would end such a run."
    return Finding(
        "eval_loss", "good", "Learns" if levelled is None else "Has levelled off",
        f"The eval loss fell from {number(evals.start)} to {number(evals.latest())}{where}.{_floor_words(run)}",
        advice, evals.last_step,
    )  # fmt: skip


def _level(evals: Points, fell: float) -> int | None:
    """The step since which the evals have stood still, or None."""
    if len(evals) < LEVEL_EVALS + EVALS:
        return None
    before = evals.value[-LEVEL_EVALS - EVALS : -LEVEL_EVALS]
    if abs(float(np.median(before)) - evals.latest()) > LEVEL_SHARE * fell:
        return None
    return int(evals.step[-LEVEL_EVALS - 1])


def _no_eval(run: Evidence) -> Finding | None:
    losses = run["loss"].behind(run.warm)
    if len(run["eval_loss"]) or len(losses) < NO_EVAL_STEPS:
        return None
    return Finding(
        "loss", "note", "No eval",
        f"The train loss is {number(losses.settled)} at {at(losses.last_step)}. Nothing is held back, so nobody can see "
        "whether it overfits.",
        "Set eval_fraction to 0.02, say, next time.",
        losses.last_step,
    )  # fmt: skip


def _near_zero(run: Evidence) -> Finding | None:
    losses = run["loss"].behind(run.warm)
    if run.setting("loss") == "ipo" or len(losses) < losses.window or losses.settled >= NEAR_ZERO:
        return None
    if run.prefers:
        sentence = f"The train loss is down to {number(losses.settled)}: the model is sure of every training pair, and "
        sentence += "further steps only push it further from where it began."
        advice = "Fewer epochs or a lower learning_rate"
        advice += "; label_smoothing 0.1 keeps it from growing too sure." if run.stage == "dpo" else "."
    else:
        sentence = f"The train loss is down to {number(losses.settled)}: the model knows its training texts by heart."
        advice = "Fewer epochs, or more data."
    return Finding("loss", "note", "Train loss near 0", sentence, advice, losses.last_step)


@dataclass(frozen=True)
class Jump:
    step: int
    before: float
    peak: float
    back: int | None  # the step by which it was over


def _jump(run: Evidence) -> Finding | None:
    found = find_jump(run["loss"])
    if found is None:
        return None
    early = found.step <= max(run.warm, run.last_step // 10)
    end = f"was back by {at(found.back)}" if found.back is not None else "has not come back"
    advice = "Lengthen warmup_steps" if early else "Lower learning_rate"
    return Finding(
        "loss", "note" if found.back is not None else "warning", "Loss jumped",
        f"The train loss jumped from about {number(found.before)} to {number(found.peak)} at {at(found.step)}, and {end}.",
        f"{advice}, or max_grad_norm ({run.setting('max_grad_norm')}); and look at the data of that step.",
        found.step,
    )  # fmt: skip


def find_jump(losses: Points) -> Jump | None:
    """The highest burst of several steps in a row among the recent ones; a single odd batch is none."""
    recent = Points(losses.step[-RECENT:], losses.value[-RECENT:])
    if len(recent) < 2 * BEFORE:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(recent.value, BEFORE)[:-1]
    level: Array = np.median(windows, axis=1)  # before each point from the BEFORE-th on
    rise = recent.value[BEFORE:] - level
    scale = TO_SIGMA * float(np.median(np.abs(rise - np.median(rise))))
    lasting = np.lib.stride_tricks.sliding_window_view(rise, JUMP_STEPS).min(axis=1)
    least = np.maximum(JUMP_NOISE * scale, JUMP_LEAST * np.abs(level[: len(lasting)]))
    places = np.flatnonzero(lasting > np.maximum(least, 1e-6))
    if not len(places):
        return None
    place = int(places[np.argmax(lasting[places])])
    first = place + BEFORE
    before, after = float(level[place]), recent.value[first + JUMP_STEPS :]
    peak = float(recent.value[first : first + JUMP_STEPS].max())
    calm = np.flatnonzero(after < before + (peak - before) / 4)
    if not len(calm) and len(after) < BACK:
        return None  # it may be over soon
    back = int(recent.step[first + JUMP_STEPS + calm[0]]) if len(calm) else None
    return Jump(int(recent.step[first]), before, peak, back)


def _bursts(run: Evidence) -> Finding | None:
    norms = run["grad_norm"].behind(run.warm)
    latest = norms.value[-BURST_WINDOW:]
    if len(latest) < BURST_WINDOW // 2:
        return None
    usual = float(np.median(latest))
    bursts = int((latest > BURST * usual).sum())
    if bursts < BURST_STEPS:
        return None
    limit = run.setting("max_grad_norm")
    cut = f"They are scaled down to max_grad_norm ({limit})" if limit else "Nothing scales them down: set max_grad_norm"
    return Finding(
        "grad_norm", "note" if limit else "warning", "Gradient bursts",
        f"{bursts} of the latest {len(latest)} steps have a gradient norm above {number(BURST * usual)}, ten times the "
        "usual.",
        f"{cut}. If the loss jumps with them, lower learning_rate or raise batch_size.",
        norms.last_step,
    )  # fmt: skip
