"""Which charts a run has: what each draws, in which unit, and what a reader should look for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

RUN, OTHER = "run", "ink-2"  # a trace in the run's own colour, and one beside it


@dataclass(frozen=True)
class Trace:
    """One curve of a chart. `sparse`: few points, drawn with markers; `noisy`: smoothed; `dashed`: the eval of a pair."""

    key: str
    name: str = ""
    token: str = RUN
    sparse: bool = False
    noisy: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A thin horizontal line to hold the curves against."""

    value: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One chart: its curves under a title, in a unit, with a word on what it is and what good looks like."""

    title: str
    traces: tuple[Trace, ...]
    unit: str = ""
    help: str = ""
    format: str = ".4~g"
    zero: bool = False  # the axis begins at 0: an amount
    minor: bool = False  # folded away
    minor_while_constant: bool = False  # folded away as long as it shows nothing
    lines: tuple[Line, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(trace.key for trace in self.traces)


def one(key: str, *, noisy: bool = False, sparse: bool = False) -> tuple[Trace, ...]:
    return (Trace(key, noisy=noisy, sparse=sparse),)


def train_eval(key: str) -> tuple[Trace, ...]:
    return Trace(key, "train", noisy=True), Trace(f"eval_{key}", "eval", OTHER, sparse=True)


def chosen_rejected(key: str) -> tuple[Trace, ...]:
    """Four curves in two colours: chosen and rejected; what is dashed is eval."""
    return tuple(
        Trace(f"{'eval_' if is_eval else ''}{key}_{side}", side + (", eval" if is_eval else ""), token,
              sparse=is_eval, noisy=not is_eval, dashed=is_eval)
        for side, token in (("chosen", RUN), ("rejected", OTHER)) for is_eval in (False, True)
    )  # fmt: skip


LOSS = Chart(
    "Loss", train_eval("loss"), "nats per token",
    "How badly the next token is guessed: lower is better. Good: train and eval fall together. Where eval turns up "
    "while train falls on, the model learns its data by heart.",
)  # fmt: skip
ACCURACY = Chart(
    "Accuracy", train_eval("accuracy"), "of pairs ranked right",
    "The share of pairs whose chosen answer gets the higher reward. Good: eval well above 0.5; 60 to 80 % is usual, for "
    "people do not agree more often. 100 % on train means that these pairs have little left to teach.",
    ".0%", lines=(Line(0.5, "chance"),),
)  # fmt: skip
MARGIN = Chart(
    "Margin", train_eval("margin"), "chosen minus rejected reward",
    "By how much the chosen answers are ahead, on average. Good: it rises and levels off. A margin that grows on while "
    "eval accuracy does not is only growing certainty.",
)  # fmt: skip

DPO = (
    replace(
        LOSS, unit="nats per pair", lines=(Line(math.log(2), "chance"),),
        help="How surprised the model is at which answer is the better one: lower is better. It starts at ln 2 = 0.693, "
        "where it cannot tell. Good: train and eval fall together; a small beta keeps both near 0.6.",
    ),
    replace(
        ACCURACY, help=ACCURACY.help + " At step 0 it says nothing: the model is its reference, and margins are 0 but for "
        "rounding.",
    ),
    MARGIN,
    Chart(
        "Log-probability", chosen_rejected("logp"), "nats per answer; dotted: eval",
        "How likely the model finds the answers, summed over their tokens. Good: rejected falls faster than chosen. That "
        "both fall a little is usual; a steep fall of chosen means that other answers take its place.",
    ),
    Chart(
        "Implicit rewards", chosen_rejected("reward"), "beta × log-ratio; dotted: eval",
        "How much likelier than under the reference the answers have become, times beta. Above 0: likelier. Good: the two "
        "part, and chosen stays near 0 or above.",
    ),
    Chart(
        "KL to the reference", one("kl", sparse=True), "nats per token",
        "How far the model has moved from the reference, on its own answers. Good: well below 0.2. The further, the less "
        "the pairs say about what the model writes.", zero=True,
    ),
    Chart(
        "Answer length", one("answer_length", sparse=True), "tokens, mean of the samples",
        "How long the sampled answers are. Good: it stays about where it was. DPO likes to learn length.", zero=True,
    ),
    Chart(
        "Answers that ended", one("answers_ended", sparse=True), "of the samples",
        "The share of sampled answers that stopped by themselves and were not cut. Good: it does not fall.",
        ".0%", zero=True,
    ),
    Chart(
        "Clamped margins",
        (Trace("clamped", "train", noisy=True), Trace("eval_clamped", "eval", OTHER, sparse=True)), "of pairs",
        "The share of pairs beyond the margin clamp: they have no gradient. Good: small. Where most are clamped, the run "
        "has nothing left to learn.", ".0%", zero=True, minor_while_constant=True,
    ),
    Chart(
        "Beta", one("beta"), "", "How much a log-ratio counts in the loss. It rises during its warm-up; eval always uses "
        "all of it.", zero=True, minor_while_constant=True,
    ),
)  # fmt: skip
REWARD = (
    replace(
        DPO[0], help="How surprised the model is at which answer is the better one: lower is better. ln 2 = 0.693 is "
        "chance. Good: train and eval fall together.",
    ),
    ACCURACY,
    MARGIN,
    Chart(
        "Rewards", chosen_rejected("reward"), "of an answer; dotted: eval",
        "The scores of the two answers. Only their difference means something: both may drift together.",
    ),
    Chart(
        "Calibration error", one("eval_calibration_error", sparse=True), "eval; 0 to 0.5",
        "How far the model's certainty lies from how often it is right. Good: below 0.1, for then its probabilities can "
        "be believed.", zero=True,
    ),
)  # fmt: skip
COMMON = (
    Chart(
        "Learning rate", one("learning_rate"), help="The size of a step: it rises over the warm-up, then follows the schedule.",
        format="",
    ),
    Chart(
        "Gradient norm", one("grad_norm", noisy=True), "before clipping",
        "How steep the loss is. Good: no bursts. What is above max_grad_norm is scaled down to it.", zero=True,
    ),
    Chart("Speed", one("tokens_per_second", noisy=True), "tokens/s", "Tokens trained on in a second.", ",.0f", zero=True),
    Chart("Memory", one("memory"), "bytes", "What the training holds of the device's memory.", ".3~s", zero=True),
    Chart(
        "Utilisation", one("utilisation", noisy=True), "of the device", "The share of time in which the device works.", ".0%",
        zero=True,
    ),
    Chart("Tokens seen", one("tokens"), "tokens", "Tokens trained on so far.", ".4~s", zero=True, minor=True),
    Chart("Epoch", one("epoch"), "passes over the data", "Passes over the training data so far.", ".3~g", zero=True, minor=True),
)  # fmt: skip
MACHINE = COMMON[3:5]  # what also those stages have that do not train
RESPOND = (
    Chart(
        "Answer length", one("answer_length"), "tokens, mean so far",
        "How long the answers are. Compare it with other models': judges like length, and the length-controlled win rate "
        "takes that out.", zero=True,
    ),
    Chart(
        "Answers that ended", one("answers_ended"), "of the answers so far",
        "The share of answers that stopped by themselves and were not cut. Good: near 100 %. Cut answers are judged as "
        "they are: raise max_new_tokens where there are many.", ".0%", zero=True,
    ),
    Chart(
        "Empty answers", one("answers_empty"), "of the answers so far",
        "The share of answers that say nothing. Good: 0. They are judged like any other, and lose.", ".1%", zero=True,
    ),
    Chart("Speed", one("tokens_per_second", noisy=True), "tokens/s", "Tokens of answers made in a second.", ",.0f", zero=True),
    Chart(
        "From the cache", one("cached"), "answers", "Answers that an earlier run made with the same model, prompt and "
        "settings: taken again, not made again.", ",.0f", zero=True, minor_while_constant=True,
    ),
)  # fmt: skip
JUDGE = (
    Chart("Judged", one("judged"), "answers, or pairs", "How many have a score or a verdict.", ",.0f", zero=True),
    Chart(
        "Mean score", one("score_mean"), "on the judge's own scale",
        "The mean of all scores so far. It says nothing by itself: only answers to the same prompt are held against each "
        "other.",
    ),
    Chart(
        "Order disagreement", one("order_disagreement"), "of the pairs",
        "The share of pairs that the judge decides otherwise when the two answers change places. Good: below 20 %. Such "
        "pairs count as ties.", ".0%", zero=True,
    ),
    Chart(
        "Repeat disagreement", one("repeat_disagreement"), "of what was judged twice",
        "The share of what was judged twice that came out otherwise the second time: the judge's own noise. Good: near 0.",
        ".0%", zero=True,
    ),
    Chart(
        "Repeat difference", one("repeat_difference"), "of two scores of one answer",
        "By how much a second score of the same answer differs, on average. Good: far below the differences between "
        "models.", zero=True,
    ),
    Chart(
        "Undecided and unread", (Trace("undecided", "undecided"), Trace("unparsable", "could not be read", OTHER)),
        "pairs; replies", "Pairs that came out otherwise in the other order, and replies in which no verdict could be found. "
        "Good: few of both. The former count as ties, the latter have no verdict.", ",.0f", zero=True,
    ),
)  # fmt: skip
AUGMENT = (
    Chart("Prompts written", one("written"), "", "New prompts that are not empty.", ",.0f", zero=True),
    Chart(
        "Pairs kept", one("kept"), "", "Pairs that no filter took. Good: a large share of the prompts; the log says which "
        "filter took how many.", ",.0f", zero=True,
    ),
    Chart(
        "Mean margin", one("mean_margin"), "on the judge's own scale",
        "By how much the judge prefers the chosen answers, on average over the pairs kept.", zero=True,
    ),
    replace(
        RESPOND[1], help="The share of answers that stopped by themselves and were not cut. Cut answers are dropped: raise "
        "max_new_tokens where there are many.",
    ),
    replace(RESPOND[2], help="The share of answers that say nothing. Good: 0. They are dropped."),
    RESPOND[0],
    RESPOND[3],
)  # fmt: skip
REPEATED = Chart(
    "Made twice", one("repeated"), "", "What was under way when the run was interrupted, and had to be asked for again.",
    ",.0f", zero=True, minor_while_constant=True,
)  # fmt: skip
OWN = {
    "dpo": (*DPO, *COMMON),
    "reward": (*REWARD, *COMMON),
    "respond": (*RESPOND, *MACHINE, REPEATED),
    "judge": (*JUDGE, *MACHINE, REPEATED),
    "augment": (*AUGMENT, *JUDGE[:3], *MACHINE, REPEATED),
}


def charts_for(keys: Sequence[str], stage: str = "sft", loss: str = "sigmoid") -> list[Chart]:
    """The charts of a stage of which a run has a metric, then one for each metric that nobody has named yet.

    `loss`: a dpo run's kind of loss; IPO's has another scale, on which chance is no fixed place.
    """
    charts = list(OWN.get(stage, (LOSS, *COMMON)))
    if loss == "ipo":
        charts[0] = replace(charts[0], unit="squared, per pair", lines=(), help=IPO_HELP)
    named = [chart for chart in charts if set(chart.keys) & set(keys)]
    return [*named, *_unnamed(keys, {key for chart in charts for key in chart.keys})]


IPO_HELP = "The squared distance of the margin per token from 1 / (2 beta): lower is better. Good: train and eval fall together."


def _unnamed(keys: Iterable[str], known: set[str]) -> list[Chart]:
    return [Chart(key.replace("_", " ").capitalize(), one(key)) for key in keys if key not in known]
