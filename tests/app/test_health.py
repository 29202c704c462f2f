"""What is said of a run's curves: each sentence where it is due and not beside it."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.runs import health
from app.runs.health import answers, evidence, loss, of_run, pairs, points, read_health
from app.runs.series import Curve
from tests.app.curves import (
    EVALS,
    EVERY,
    PAIRS,
    STAGES,
    STEPS,
    Shape,
    by_eval,
    by_step,
    fallen,
    flat,
    healthy,
    of,
    said,
    settles,
    upto,
)

CHANCE = math.log(2)


def rising_since_its_best(best: float, factor: float) -> Curve:
    """Evals that fall to a best one, stay for three, and stand at a multiple of it from then on."""
    return by_eval([0.693, 0.66, 0.63, best, best, best, *[factor * best] * (EVALS - 6)])


def still_falling(share: float) -> Curve:
    """Evals that fell by 0.1, this share of it since the eighth from the end."""
    return by_eval([0.7, *[0.6 + 0.1 * share] * (EVALS - 6), *[0.6] * 5])


def still_at(chance: float) -> Shape:
    """A train loss that stays at chance, and evals that go a share of the way from there to 0."""
    return lambda share: {"loss": flat(chance), "eval_loss": settles(chance, chance * (1 - share))}


def by_heart(chance: float) -> Shape:
    """Evals that stay at chance, and a train loss that has gone a share of the way from there to 0."""
    return lambda share: {"loss": flat(chance * (1 - share)), "eval_loss": settles(chance, chance)}


def burst(height: float, steps: int = 5, first: int = 300, level: float = 2.0) -> Curve:
    """A train loss with a burst of a few steps."""
    values = level + 0.001 * np.cos(np.arange(STEPS))
    values[first : first + steps] = level * height
    return by_step(list(values))


def norms(count: int, height: float = 11.0) -> Curve:
    values = [1.0] * STEPS
    values[-150 : -150 + 20 * count : 20] = [height] * count
    return by_step(values)


def away(shift: float, margin: float = 0.5) -> dict[str, Curve]:
    """Rewards whose mean moves by so much."""
    sides = {"chosen": shift + margin / 2, "rejected": shift - margin / 2}
    return {f"eval_reward_{side}": settles(0.0, end) for side, end in sides.items()} | {
        "eval_margin": settles(0.0, margin)
    }


def beside_chance(accuracy: float) -> dict[str, Curve]:
    return {"accuracy": flat(0.5), "eval_accuracy": settles(0.3, accuracy)}


def titles_in_the_code() -> set[str]:
    """The texts that stand where a Finding's title does."""
    return {
        part.value
        for path in Path(health.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding"
        for part in ast.walk(call.args[2])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


LORA: dict[str, Any] = {"lora_rank": 8}
# title, level, stage, settings, shape, an amount that is enough, one just beside it that is not
CASES: list[tuple[str, str, str, dict[str, Any], Shape, float, float]] = [
    ("Worse than at the start", "warning", "dpo", {}, of(lambda x: settles(0.693, 0.693 * x), "eval_loss"), 1.031, 1.029),
    ("Worse than at the start", "warning", "sft", {}, of(lambda x: settles(2.5, 2.5 * x), "eval_loss"), 1.031, 1.029),
    ("Overfitting", "note", "dpo", {}, of(lambda x: rising_since_its_best(0.6, x), "eval_loss"), 1.011, 1.009),
    ("Overfitting", "warning", "reward", {}, of(lambda x: rising_since_its_best(0.6, x), "eval_loss"), 1.031, 1.029),
    ("Overfitting", "warning", "sft", {}, of(lambda x: rising_since_its_best(0.6, x), "eval_loss"), 1.031, 1.029),
    ("Has not begun to learn", "warning", "dpo", {}, still_at(CHANCE), 0.019, 0.021),
    ("Has not begun to learn", "warning", "reward", LORA, still_at(CHANCE), 0.019, 0.021),
    ("Has not begun to learn", "note", "dpo", {"warmup_steps": 450}, still_at(CHANCE), 0.019, 0.021),
    ("Has not begun to learn", "warning", "dpo", {"loss": "ipo", "beta": 0.1}, still_at(25.0), 0.019, 0.021),
    ("Eval stays at chance", "warning", "dpo", {}, by_heart(CHANCE), 0.051, 0.049),
    ("Eval stays at chance", "note", "reward", {"warmup_steps": 450}, by_heart(CHANCE), 0.051, 0.049),
    ("Eval stays at chance", "warning", "dpo", {"loss": "ipo", "beta": 0.1}, by_heart(25.0), 0.051, 0.049),
    ("Learns", "good", "sft", {}, of(still_falling, "eval_loss"), 0.021, 0.019),
    ("Has levelled off", "good", "sft", {}, of(still_falling, "eval_loss"), 0.019, 0.021),
    ("Has levelled off", "good", "sft", {}, of(lambda x: settles(2.5, 2.5 * (1 - x)), "eval_loss"), 0.011, 0.009),
    ("Train loss near 0", "note", "sft", {}, of(flat, "loss"), 0.049, 0.051),
    ("Train loss near 0", "note", "dpo", {}, of(flat, "loss"), 0.049, 0.051),
    ("Loss jumped", "note", "sft", {}, of(burst, "loss"), 1.26, 1.24),
    ("Loss jumped", "note", "dpo", {}, of(lambda x: burst(1.5, int(x)), "loss"), 3, 2),
    ("Loss jumped", "warning", "reward", {}, of(lambda x: burst(x, STEPS), "loss"), 1.26, 1.24),
    ("Gradient bursts", "note", "sft", {}, of(lambda x: norms(int(x)), "grad_norm"), 5, 4),
    ("Gradient bursts", "warning", "dpo", {"max_grad_norm": None}, of(lambda x: norms(6, x), "grad_norm"), 10.1, 9.9),
    ("Ranks what it has seen", "note", "dpo", {}, of(flat, "accuracy"), 0.825, 0.82),  # 0.63 + 0.15 + 0.0438
    ("Ranks what it has seen", "warning", "reward", {}, of(flat, "accuracy"), 0.925, 0.92),
    ("Saturated", "note", "dpo", {}, lambda x: {"accuracy": flat(x), "eval_accuracy": settles(0.5, 0.9)}, 0.991, 0.989),
    ("Ranks the wrong way round", "warning", "dpo", {}, beside_chance, 0.456, 0.457),
    ("Not told from chance", "note", "reward", {}, beside_chance, 0.457, 0.456),
    ("Not told from chance", "note", "dpo", {}, beside_chance, 0.543, 0.544),
    ("Ranks pairs it has not seen", "good", "dpo", {}, beside_chance, 0.544, 0.543),
    ("Likelihood displacement", "warning", "dpo", {}, lambda x: fallen(x, 40), 101, 99),
    ("Likelihood displacement", "warning", "dpo", {}, lambda x: fallen(41, x), 13, 14),  # steep: thrice the margin
    ("Likelihood displacement", "warning", "dpo", {}, lambda x: fallen(x, start=-8.0), 5.1, 4.9),
    ("Chosen falls", "note", "dpo", {}, fallen, 51, 49),
    ("Chosen and rejected part", "good", "dpo", {}, lambda x: fallen(10, x), 1, -1),
    ("Rejected rises", "note", "dpo", {}, of(lambda x: settles(-190, -190 + x), "eval_logp_rejected"), 9.6, 9.4),
    ("Pairs that teach nothing", "note", "dpo", {"margin_clamp": 20.0}, of(flat, "clamped"), 0.21, 0.19),
    ("Pairs that teach nothing", "warning", "dpo", {"margin_clamp": 20.0}, of(flat, "clamped"), 0.51, 0.49),
    ("Badly calibrated", "note", "reward", {}, of(lambda x: settles(0.05, x), "eval_calibration_error"), 0.157, 0.156),
    ("Too sure", "warning", "reward", {}, lambda x: {
        "eval_loss": settles(0.7, x), "eval_accuracy": settles(0.5, 0.7), "eval_calibration_error": settles(0, 0.2),
    }, 0.612, 0.610),  # the entropy of 0.7 is 0.6109
    ("Rewards drift", "note", "reward", {}, away, 3.1, 2.9),
    ("Rewards drift", "note", "reward", {}, lambda x: away(x, margin=2.0), -6.1, -5.9),
    ("Answers grow", "warning", "dpo", {}, of(lambda x: settles(40, x), "answer_length"), 61, 59),
    ("Answers shrink", "warning", "dpo", {}, of(lambda x: settles(70, x), "answer_length"), 34, 36),
    ("Length not to be seen", "note", "dpo", {}, of(lambda x: settles(x, x), "answer_length"), 87, 86),  # 0.9 of 96
    ("Length is steady", "good", "dpo", {}, of(lambda x: settles(40, x), "answer_length"), 59, 61),
    ("Answers no longer end", "warning", "dpo", {}, of(lambda x: settles(0.8, x), "answers_ended"), 0.49, 0.51),
    ("Far from the reference", "note", "dpo", {}, of(lambda x: settles(0, x), "kl"), 0.21, 0.19),
    ("Far from the reference", "warning", "dpo", {}, of(lambda x: settles(0, x), "kl"), 0.51, 0.49),
]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "level", "stage", "config", "shape", "enough", "beside"), CASES,
    ids=[f"{case[0]}-{case[1]}-{case[2]}-{case[5]}" for case in CASES],
)  # fmt: skip
def test_a_thing_is_said_where_it_is_so_and_not_just_beside_it(
    title: str, level: str, stage: str, config: dict[str, Any], shape: Shape, enough: float, beside: float
) -> None:
    curves = healthy(stage) | ({"eval_accuracy": settles(0.3, 0.63)} if stage != "sft" else {})
    found = said(stage, curves | shape(enough), **config)
    assert found[title].level == level
    assert title not in said(stage, curves, **config) or level == "good"
    other = said(stage, curves | shape(beside), **config).get(title)
    assert other is None or (other.level != level and level == "warning")


def test_all_that_can_be_said_has_a_case_or_a_test_of_its_own() -> None:
    own = {"No eval", "Eval loss rises", "Too early to say"}
    assert titles_in_the_code() == {case[0] for case in CASES} | own


@pytest.mark.parametrize("stage", STAGES)
def test_a_healthy_run_gets_good_words_alone_with_its_numbers(stage: str) -> None:
    found = read_health(stage, {}, healthy(stage), PAIRS)
    assert {each.level for each in found} == {"good"}
    course = next(each for each in found if each.metric == "eval_loss")
    start, end = (2.5, 1.92) if stage == "sft" else (0.693, 0.602)
    assert f"fell from {start:g}" in course.sentence.replace("2.50", "2.5")
    assert f"to {end}" in course.sentence


def test_a_collapsing_dpo_run_is_told_what_it_loses_and_which_settings_help() -> None:
    curves = healthy("dpo", seed=1) | fallen(140.0, grown=20.0)
    found = read_health("dpo", {"beta": 0.05, "learning_rate": 2e-5}, curves, PAIRS)[0]
    assert (found.title, found.level, found.metric) == ("Likelihood displacement", "warning", "eval_logp_chosen")
    assert "lost 140 nats of log-probability, 70 % of what they had (-200 at the start)" in found.sentence
    assert "the margin grew by 20.0" in found.sentence
    assert "Raise beta (0.05), lower learning_rate (2e-05)" in found.advice


def test_without_eval_a_collapse_shows_in_the_train_rewards() -> None:
    train = {key: each for key, each in healthy("dpo").items() if not key.startswith("eval_")}
    fall = np.linspace(0, -20, STEPS)  # times beta 0.1: 200 nats, of 200
    curves = train | {"reward_chosen": by_step(list(fall)), "reward_rejected": by_step(list(1.1 * fall))}
    found = said("dpo", curves, None)["Likelihood displacement"]
    assert found.metric == "logp_chosen"
    assert "Likelihood displacement" not in said("dpo", train, None)


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_a_saturated_run_is_told_of_its_pairs(stage: str) -> None:
    curves = healthy(stage, seed=2) | {"accuracy": flat(1.0)}
    found = said(stage, curves | {"eval_accuracy": settles(0.4, 1.0)})["Saturated"]
    assert "ranked right to 100 %, and so are 100 % of those held back" in found.sentence
    assert "Read some pairs" in found.advice
    alone = {key: each for key, each in curves.items() if not key.startswith("eval_")}
    assert "(eval_fraction)" in said(stage, alone)["Saturated"].advice
    by_heart = said(stage, curves)["Ranks what it has seen"]
    assert by_heart.sentence.startswith("100 % of the training pairs are ranked right, but 70 %")
    assert "learning_rate" in by_heart.advice


def test_an_overfitting_run_is_told_its_best_step_and_of_early_stopping() -> None:
    curves = healthy("reward") | {"eval_loss": rising_since_its_best(0.6, 1.1), "eval_accuracy": settles(0.5, 0.7)}
    found = said("reward", curves)["Overfitting"]
    assert found.step == 3 * EVERY
    assert "best eval loss was 0.600 at step 150; it has risen to 0.660" in found.sentence
    assert "ranks the pairs no worse" in found.sentence
    assert "set early_stopping_patience" in found.advice
    assert "early_stopping_patience (5) ends" in said("reward", curves, early_stopping_patience=5)["Overfitting"].advice


def test_where_the_train_loss_does_not_fall_a_rising_eval_is_not_called_overfitting() -> None:
    curves = healthy("sft") | {"loss": flat(2.0), "eval_loss": rising_since_its_best(0.6, 1.1)}
    found = said("sft", curves)
    assert found["Eval loss rises"].level == "warning"
    assert "Overfitting" not in found


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_without_eval_is_told_so_after_fifty_steps(stage: str) -> None:
    alone = {"loss": healthy(stage)["loss"]}
    assert said(stage, upto(alone, 50), None)["No eval"].level == "note"
    assert "No eval" not in said(stage, upto(alone, 49), None)


def test_a_small_beta_with_a_clamp_narrows_what_counts_as_learning() -> None:
    """The loss cannot fall below log(1 + exp(-0.015 x 20)) = 0.554; 2 % of the way there is 0.690."""
    curves = healthy("dpo") | {"loss": flat(CHANCE), "eval_loss": settles(CHANCE, 0.689)}
    assert "Has not begun to learn" in said("dpo", curves)
    small = said("dpo", curves, beta=0.015, margin_clamp=20.0)
    assert "Has not begun to learn" not in small
    assert "With this margin_clamp and beta it cannot fall below 0.554." in small["Has levelled off"].sentence


@pytest.mark.parametrize(
    ("config", "floor"),
    [
        ({}, 0.0),
        ({"beta": 0.015, "margin_clamp": 20.0}, 0.554355),
        ({"label_smoothing": 0.1}, 0.325083),  # the entropy of 0.1
        ({"label_smoothing": 0.1, "beta": 0.1, "margin_clamp": 10.0}, 0.413262),  # 0.313262 + 0.1
        ({"loss": "ipo"}, 0.0),
    ],
)
def test_the_least_loss_follows_from_the_settings(config: dict[str, Any], floor: float) -> None:
    assert evidence.Evidence("dpo", config, {}).floor == pytest.approx(floor, abs=1e-6)


def test_a_run_that_learns_its_pairs_by_heart_is_not_told_to_learn_faster() -> None:
    memorised = healthy("dpo") | by_heart(CHANCE)(0.12) | {"accuracy": flat(0.8), "eval_accuracy": settles(0.5, 0.55)}
    found = said("dpo", memorised)
    assert {"Eval stays at chance", "Ranks what it has seen"} <= set(found) and "Has not begun to learn" not in found
    assert "the train loss has fallen to 0.610" in found["Eval stays at chance"].sentence
    assert not any("Raise learning_rate" in each.advice for each in found.values())


def test_one_long_sampling_is_not_growth_and_two_in_a_row_are() -> None:
    for long, expected in ((1, False), (2, True)):
        lengths = [40.0] * (EVALS - long) + [90.0] * long
        found = said("dpo", healthy("dpo") | {"answer_length": by_eval(lengths)})
        assert ("Answers grow" in found) == expected


def test_time_is_given_after_the_warm_up_before_a_word_on_chance_or_a_warning() -> None:
    still, guessing = still_at(CHANCE)(0), beside_chance(0.5)
    for warm, level in ((400, "warning"), (401, "note")):
        assert said("reward", healthy("reward") | still, warmup_steps=warm)["Has not begun to learn"].level == level
    for warm, expected in ((500, True), (501, False)):
        found = said("dpo", healthy("dpo") | guessing, beta_warmup_steps=warm)
        assert ("Not told from chance" in found) == expected


def test_a_jump_may_come_back_within_twenty_steps_before_it_is_spoken_of() -> None:
    for since, expected in ((20, True), (19, False)):
        last = 3 + since
        found = said("sft", healthy("sft") | {"loss": burst(1.5, last, STEPS - last)})
        assert ("Loss jumped" in found) == expected


def test_without_the_number_of_pairs_nothing_is_said_of_chance() -> None:
    curves = healthy("dpo") | beside_chance(0.5)
    assert "Not told from chance" in said("dpo", curves, PAIRS)
    assert "Not told from chance" not in said("dpo", curves, None)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("config", [{}, {"warmup_steps": 100}])
def test_a_young_run_gets_one_note_at_most(stage: str, config: dict[str, Any]) -> None:
    curves = healthy(stage, seed=3)
    assert read_health(stage, config, {}, PAIRS) == []
    for step in range(3 * EVERY):
        found = read_health(stage, config, upto(curves, step), PAIRS)
        assert [each.level for each in found if each.level != "good"] in ([], ["note"]), step
    first = read_health(stage, config, upto(curves, 0), PAIRS)
    assert [each.title for each in first] == ["Too early to say"]


def test_at_step_0_no_accuracy_is_promised() -> None:
    sentences = []
    for accuracy in (0.0, 0.2, 0.5):
        curves = {"eval_loss": by_eval([CHANCE]), "eval_accuracy": by_eval([accuracy])}
        sentences += [each.sentence for each in read_health("dpo", {}, curves, PAIRS)]
    assert len(set(sentences)) == 1
    assert "margin 0, loss 0.693. The accuracy there says nothing" in sentences[0]
    other = read_health("dpo", {"reference_model": "run:sft"}, {"eval_loss": by_eval([0.9])}, PAIRS)
    assert "is its reference" not in other[0].sentence


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_said_of_a_healthy_run_does_not_flicker(stage: str) -> None:
    """The first sentences come with the third and fourth eval; from then on the same things are said."""
    curves = healthy(stage, seed=4)
    titles = [frozenset(said(stage, upto(curves, step))) for step in range(STEPS + 1)]
    changes = [step for step in range(1, STEPS + 1) if titles[step] != titles[step - 1]]
    assert len(changes) <= 2, changes


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(STAGES)), st.integers(0, 2**32 - 1), st.floats(0.0, 1.5))
def test_noise_around_a_healthy_curve_gives_no_warning(stage: str, seed: int, noise: float) -> None:
    curves = healthy(stage, seed, noise)
    for step in (25, 110, 200, 350, STEPS):
        found = read_health(stage, {}, upto(curves, step), PAIRS)
        assert [each for each in found if each.level == "warning"] == [], step


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(STAGES)), st.data())
def test_whatever_the_curves_are_something_is_said_in_order_and_nothing_breaks(stage: str, data: st.DataObject) -> None:
    point = st.none() | st.floats(-1e6, 1e6)
    curves = {
        key: Curve(step=list(range(len(values))), value=values)
        for key in STAGES[stage]
        if (values := data.draw(st.lists(point, max_size=80), label=key))
    }
    levels = [each.level for each in read_health(stage, {"margin_clamp": 20.0}, curves, PAIRS)]
    assert levels == sorted(levels, key=["warning", "note", "good"].index)


@pytest.mark.parametrize("stage", STAGES)
def test_the_reader_asks_for_no_curve_that_the_database_is_not_asked_for(stage: str) -> None:
    asked: set[str] = set()

    class Asked(dict[str, Curve]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    read_health(stage, {"margin_clamp": 20.0}, Asked(healthy(stage)), PAIRS)
    read_health(stage, {"margin_clamp": 20.0}, Asked({"loss": flat(0.6), "reward_chosen": flat(0)}), PAIRS)
    assert len(asked) > 2
    assert asked <= set(of_run.METRICS)


def test_the_page_on_health_has_every_title_and_every_limit_with_its_value() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/health.md").read_text()
    shown = set(re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", page, re.MULTILINE))
    limits = {
        (name, f"{value:g}" if name != "TO_SIGMA" else str(value))
        for module in (points, loss, pairs, answers)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float)
    }
    assert shown == limits
    assert len(limits) > 40
    for title in titles_in_the_code() - {"Too early to say"}:
        assert f"| {title} |" in page


@pytest.mark.parametrize("stage", ["respond", "judge"])
def test_of_a_run_that_trains_nothing_nothing_is_said(stage: str) -> None:
    curves = {
        "answer_length": by_eval([20.0] * EVALS),
        "answers_ended": flat(0.1),
        "loss": flat(9.0),
        "judged": flat(5),
    }
    assert read_health(stage, {"model": "hf:me/chat"}, curves) == []
