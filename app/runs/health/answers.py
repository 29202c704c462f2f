"""What the answers to the fixed prompts say: their length, whether they end, and how far the model has gone (KL)."""

from __future__ import annotations

from app.runs.health.evidence import Evidence
from app.runs.health.finding import Finding, at, number, percent
from app.runs.health.points import Points

# Thresholds; docs/health.md says why.
LONGER, SHORTER = 1.5, 0.5  # times the length at the start
IN_A_ROW = 2  # samplings that must agree
ENDED_LESS = 0.3  # how much smaller the share of answers that end has become
CUT = 0.9  # of sample_tokens: a mean this long says how long answers may be, not how long they are
KL_NOTE, KL_WARNING = 0.2, 0.5  # nats per token


def read_answers(run: Evidence) -> list[Finding]:
    return [each for each in (_length(run), _ended(run), _kl(run)) if each]


def _since(points: Points) -> list[float]:
    """The latest samplings, where enough came after the first."""
    return [float(value) for value in points.value[-IN_A_ROW:]] if len(points) > IN_A_ROW else []


def _length(run: Evidence) -> Finding | None:
    lengths, most = run["answer_length"], run.setting("sample_tokens")
    latest = _since(lengths)
    if not latest or lengths.start <= 0:
        return None
    now, step = latest[-1], lengths.last_step
    said = f"The sampled answers had {number(lengths.start)} tokens at {at(int(lengths.step[0]))} and have {number(now)} now"
    if min(latest) >= LONGER * lengths.start:
        cut = f", with sample_tokens ({most}) as the limit" if most and now >= CUT * most else ""
        return Finding(
            "answer_length", "warning", "Answers grow",
            f"{said}{cut}: length may be what is learnt, and judges like it.",
            "Compare by the length-controlled win rate. Raise beta, take loss: sigmoid_norm, or fewer steps; look whether "
            "chosen answers are longer than rejected ones in the data.",
            step,
        )  # fmt: skip
    if max(latest) <= SHORTER * lengths.start:
        return Finding(
            "answer_length", "warning", "Answers shrink", f"{said}.",
            "Read the samples: are they still answers? Lower learning_rate or raise beta.", step,
        )  # fmt: skip
    if most and lengths.start >= CUT * most and now >= CUT * most:
        return Finding(
            "answer_length", "note", "Length not to be seen",
            f"{said}: nearly all are cut at sample_tokens ({most}), so growth would not show.",
            "Raise sample_tokens next time, to 512, say.", step,
        )  # fmt: skip
    return Finding("answer_length", "good", "Length is steady", f"{said}.", step=step)


def _ended(run: Evidence) -> Finding | None:
    ended = run["answers_ended"]
    latest = _since(ended)
    if not latest or ended.start - max(latest) < ENDED_LESS:
        return None
    return Finding(
        "answers_ended", "warning", "Answers no longer end",
        f"{percent(ended.start)} of the sampled answers ended by themselves at {at(int(ended.step[0]))}, {percent(latest[-1])} "
        "do now.",
        "Look for repetition in the samples. Lower learning_rate or raise beta; see that the pairs' answers are not cut "
        f"by max_length ({run.setting('max_length')}), for what is cut has no end to learn.",
        ended.last_step,
    )  # fmt: skip


def _kl(run: Evidence) -> Finding | None:
    kl = run["kl"]
    latest = _since(kl)
    if not latest or min(latest) < KL_NOTE:
        return None
    length = run["answer_length"]
    whole = f", about {number(latest[-1] * length.latest(1))} an answer" if len(length) else ""
    return Finding(
        "kl", "warning" if min(latest) >= KL_WARNING else "note", "Far from the reference",
        f"On its own answers the model is {number(latest[-1])} nats per token away from the reference{whole}. The further, "
        "the less the pairs, which others wrote, say about what it writes.",
        f"Take an earlier checkpoint if the win rate is no better. Raise beta ({run.setting('beta'):g}), lower learning_rate "
        "or take fewer steps.",
        kl.last_step,
    )  # fmt: skip
