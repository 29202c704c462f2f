"""From events to curves to figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charts.catalogue import COMMON, LOSS, OWN, charts_for
from app.charts.figures import figure, template, themes
from app.charts.tokens import parse_tokens
from app.runs.series import Metrics, as_json, attempts, curves


def points(attempt: int, *steps: int, began: float = 0.0) -> list[Metrics]:
    return [Metrics(attempt, began + step, step, {"loss": attempt + step / 1000}) for step in steps]


def test_a_later_attempt_replaces_what_earlier_ones_wrote_from_its_first_step_on() -> None:
    found = curves([*points(1, *range(1, 8)), *points(2, 5, 6)])["loss"]
    assert found.step == [1, 2, 3, 4, 5, 6]
    assert found.value == [1.001, 1.002, 1.003, 1.004, 2.005, 2.006]


def test_a_retry_from_nothing_leaves_nothing_of_what_was_before() -> None:
    found = curves([*points(1, 1, 2, 3), *points(2, 1)])["loss"]
    assert (found.step, found.value) == ([1], [2.001])


def test_the_loss_at_the_step_of_the_checkpoint_stands_where_the_next_attempt_begins_with_that_steps_eval() -> None:
    first = [*points(1, *range(1, 8))]
    first.insert(5, Metrics(1, 5.0, 5, {"eval_loss": 9.0}))
    found = curves([*first, Metrics(2, 100.0, 5, {"eval_loss": 8.0}), *points(2, 6, 7, began=100.0)])
    assert found["loss"].step == [1, 2, 3, 4, 5, 6, 7]
    assert found["loss"].value == [1.001, 1.002, 1.003, 1.004, 1.005, 2.006, 2.007]
    assert (found["eval_loss"].step, found["eval_loss"].value) == ([5], [8.0])


def test_two_records_of_one_step_are_one_point_of_each_metric() -> None:
    records = [Metrics(1, 0.0, 10, {"loss": 2.0}), Metrics(1, 1.0, 10, {"eval_loss": 2.5, "loss": 1.5})]
    found = curves(records)
    assert (found["loss"].step, found["loss"].value) == ([10], [1.5])
    assert found["eval_loss"].value == [2.5]


def test_time_counts_training_and_not_the_gap_between_attempts() -> None:
    records = [*points(1, 0, 10, began=100.0), *points(2, 10, 20, began=5000.0)]
    assert curves(records)["loss"].seconds == [0.0, 10.0, 20.0]
    assert [(each.step, each.offset) for each in attempts(records)] == [(0, 0.0), (10, 10.0)]


def test_tokens_are_carried_on_where_a_record_does_not_say() -> None:
    records = [Metrics(1, 0.0, 1, {"loss": 1.0, "tokens": 512}), Metrics(1, 0.0, 1, {"eval_loss": 1.0})]
    assert curves(records)["eval_loss"].tokens == [512]


def test_thinning_keeps_ends_extremes_and_gaps() -> None:
    values: list[float | None] = [math.sin(n / 500) for n in range(20_000)]
    values[7777], values[12_345] = 50.0, None
    found = curves([Metrics(1, float(n), n, {"loss": value}) for n, value in enumerate(values)], points=1000)["loss"]
    assert len(found.step) <= 1001
    assert (found.step[0], found.step[-1]) == (0, 19_999)
    assert 50.0 in found.value
    assert found.value[found.step.index(12_345)] is None
    assert found.step == sorted(found.step)


record = st.builds(
    Metrics,
    attempt=st.integers(1, 3),
    time=st.floats(0, 1e9),
    step=st.integers(0, 30),
    values=st.dictionaries(st.sampled_from(["loss", "x"]), st.none() | st.floats(-5, 5), min_size=1),
)


@given(st.lists(record, max_size=30))
def test_whatever_was_written_every_curve_has_parallel_lists(records: list[Metrics]) -> None:
    records.sort(key=lambda each: each.attempt)
    for curve in as_json(records, 0)["series"].values():
        assert len({len(values) for values in curve.values()}) == 1


@given(st.lists(record, max_size=30))
def test_curves_are_what_a_walk_over_the_records_gives(records: list[Metrics]) -> None:
    records.sort(key=lambda each: (each.attempt, each.step))
    walked: dict[str, list[tuple[int, float | None]]] = {}
    attempt = 0
    for each in records:
        if each.attempt != attempt:
            attempt = each.attempt
            for points in walked.values():
                while points and points[-1][0] > each.step:
                    points.pop()
        for key, value in each.values.items():
            points = walked.setdefault(key, [])
            if points and points[-1][0] == each.step:
                points.pop()
            points.append((each.step, value))
    found = {key: list(zip(curve.step, curve.value, strict=True)) for key, curve in curves(records).items()}
    assert found == {key: points for key, points in walked.items() if points}


def test_loss_and_eval_loss_stand_together_and_first() -> None:
    charts = charts_for(["grad_norm", "eval_loss", "loss", "reward_margin"])
    assert [chart.title for chart in charts] == ["Loss", "Gradient norm", "Reward margin"]
    series = {key: {"step": [1], "value": [2.0]} for key in ("loss", "eval_loss")}
    made = figure(charts[0], series, "run-3")
    assert [trace["meta"]["key"] for trace in made["data"]] == ["loss", "eval_loss"]
    assert [trace["mode"] for trace in made["data"]] == ["lines", "lines+markers"]
    assert made["data"][0]["meta"]["token"] == "run-3"


def test_only_noisy_curves_are_smoothed() -> None:
    keys = ["loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "memory", "utilisation", "tokens"]
    series = {key: {"step": [1], "value": [2.0]} for key in keys}
    traces = [trace for chart in charts_for(keys) for trace in figure(chart, series, "run-1")["data"]]
    smooth = {trace["meta"]["key"] for trace in traces if trace["meta"]["smooth"]}
    assert smooth == {"loss", "grad_norm", "tokens_per_second", "utilisation"}


def drawn(stage: str, *keys: str, loss: str = "sigmoid", value: float = 2.0) -> dict[str, dict[str, Any]]:
    """The figures of a run with these metrics, by title."""
    series = {key: {"step": [1, 2], "value": [value, value]} for key in keys}
    return {chart.title: figure(chart, series, "run-2") for chart in charts_for(keys, stage, loss)}


def test_chosen_and_rejected_have_a_colour_each_and_their_evals_are_dotted() -> None:
    keys = ["eval_logp_rejected", "eval_logp_chosen", "logp_rejected", "logp_chosen"]
    (made,) = drawn("dpo", *keys).values()
    traces = {trace["meta"]["key"]: trace for trace in made["data"]}
    assert [traces[key]["meta"]["token"] for key in keys] == ["ink-2", "run-2", "ink-2", "run-2"]
    assert [traces[key]["line"]["dash"] for key in keys] == ["dot", "dot", "solid", "solid"]
    assert [traces[key]["showlegend"] for key in keys] == [False, False, True, True]


def test_a_stage_of_pairs_holds_loss_and_accuracy_against_chance() -> None:
    for stage in ("dpo", "reward"):
        made = drawn(stage, "loss", "accuracy")
        assert made["Loss"]["lines"] == [{"value": math.log(2), "label": "chance"}]
        assert made["Accuracy"]["lines"] == [{"value": 0.5, "label": "chance"}]
    assert drawn("sft", "loss")["Loss"]["lines"] == []
    assert drawn("dpo", "loss", loss="ipo")["Loss"]["lines"] == []


def test_what_is_constant_is_folded_away_until_it_moves() -> None:
    assert drawn("dpo", "beta")["Beta"]["minor"]
    (beta,) = charts_for(["beta"], "dpo")
    assert not figure(beta, {"beta": {"step": [1, 2], "value": [0.05, 0.1]}}, "run-1")["minor"]
    rounded = [0.10000000894069672, 0.10000000149011612, None]  # 0.1 in fp32, summed over micro-batches in two ways
    assert figure(beta, {"beta": {"step": [1, 2, 3], "value": rounded}}, "run-1")["minor"]
    assert not drawn("dpo", "kl")["KL to the reference"]["minor"]


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward", "respond", "judge"])
def test_every_chart_of_a_stage_says_what_it_shows_and_a_new_metric_gets_one_too(stage: str) -> None:
    own = OWN.get(stage, (LOSS, *COMMON))
    charts = charts_for([*(key for chart in own for key in chart.keys), "odd_one"], stage)
    assert [chart.title for chart in charts] == [*(chart.title for chart in own), "Odd one"]
    assert all(chart.help for chart in charts[:-1])


def test_a_run_that_asks_models_has_charts_of_what_came_back_and_none_of_training() -> None:
    made = drawn("respond", "answer_length", "answers_ended", "answers_empty", "tokens_per_second", "cached", value=0.5)
    assert list(made) == ["Answer length", "Answers that ended", "Empty answers", "Speed", "From the cache"]
    assert "made" in made["Speed"]["help"] and "Trained" not in made["Speed"]["help"]
    assert made["Answers that ended"]["layout"]["yaxis"]["tickformat"] == ".0%"
    made = drawn("judge", "judged", "undecided", "unparsable", "order_disagreement", "repeated", value=0.5)
    assert list(made) == ["Judged", "Order disagreement", "Undecided and unread", "Made twice"]
    assert made["Made twice"]["minor"]
    stages = [charts_for(["answer_length", "judged"], stage) for stage in ("respond", "judge")]
    assert "Loss" not in {chart.title for charts in stages for chart in charts}


def test_a_figure_names_what_its_points_count() -> None:
    (chart,) = charts_for(["judged"], "judge")
    series = {"judged": {"step": [1], "value": [1.0]}}
    assert figure(chart, series, "run-1", "requests so far")["layout"]["xaxis"]["title"]["text"] == "requests so far"
    assert figure(chart, series, "run-1")["layout"]["xaxis"]["title"]["text"] == "step"


def test_templates_take_their_colours_from_the_stylesheet() -> None:
    tokens = parse_tokens(":root { --ink: light-dark(#111111, #eeeeee);\n --step: 4px; }")
    assert tokens == {"ink": {"light": "#111111", "dark": "#eeeeee"}}
    assert template("light") != template("dark")
    assert set(themes()) == {"light", "dark"}
    assert {f"run-{n}" for n in range(1, 6)} <= set(themes()["dark"]["colours"])
