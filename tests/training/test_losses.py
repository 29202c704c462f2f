"""The losses against values worked out by hand. (Against TRL's: test_against_trl.py.)"""

from __future__ import annotations

import math

import pytest
import torch

from training.config import DpoConfig
from training.losses import cdpo_loss, clamped, dpo_loss, ipo_loss, per_token, reward_loss
from training.stages.dpo import preference_loss, warmed_up


def config(**settings: object) -> DpoConfig:
    return DpoConfig.model_validate({"model": "run:sft", "dataset": "data:pairs", **settings})


def test_a_model_that_is_its_reference_has_a_loss_of_ln_2() -> None:
    assert dpo_loss(torch.zeros(3), beta=0.015).tolist() == pytest.approx([math.log(2)] * 3)


def test_dpo_is_minus_log_sigmoid_of_beta_times_the_margin() -> None:
    # beta x margin = 1 and -1: log(1 + e^-1) = 0.3132617, log(1 + e) = 1.3132617
    assert dpo_loss(torch.tensor([2.0, -2.0]), beta=0.5).tolist() == pytest.approx([0.3132617, 1.3132617])


def test_a_margin_far_below_zero_has_a_finite_loss() -> None:
    assert dpo_loss(torch.tensor([-1e4]), beta=1.0).tolist() == [1e4]


def test_label_smoothing_weighs_the_loss_of_both_orders() -> None:
    # 0.9 x 0.3132617 + 0.1 x 1.3132617
    assert cdpo_loss(torch.tensor([2.0]), 0.5, 0.1).item() == pytest.approx(0.4132617)


def test_label_smoothing_is_content_where_the_model_is_as_sure_as_the_labels() -> None:
    margin = torch.tensor([math.log(0.9 / 0.1) / 0.5], requires_grad=True)  # sigmoid(0.5 margin) = 0.9
    cdpo_loss(margin, 0.5, 0.1).sum().backward()
    assert margin.grad is not None and abs(margin.grad.item()) < 1e-7


def test_ipo_pulls_the_margin_to_one_over_two_beta() -> None:
    # 1 / (2 x 0.1) = 5: (3 - 5)^2, (5 - 5)^2, (6 - 5)^2
    assert ipo_loss(torch.tensor([3.0, 5.0, 6.0]), beta=0.1).tolist() == pytest.approx([4.0, 0.0, 1.0])


def test_log_ratios_per_token_are_divided_by_each_answers_own_length() -> None:
    ratios = per_token(torch.tensor([[6.0, -6.0]]), torch.tensor([[3.0, 12.0]]))
    assert ratios.tolist() == [[2.0, -0.5]]


def test_a_clamped_margin_is_cut_at_both_ends_and_teaches_nothing_beyond() -> None:
    margins = torch.tensor([25.0, 3.0, -25.0], requires_grad=True)
    cut = clamped(margins, 20)
    assert cut.tolist() == [20.0, 3.0, -20.0]
    dpo_loss(cut, beta=0.5).sum().backward()
    assert margins.grad is not None
    assert margins.grad.tolist() == pytest.approx([0.0, -0.5 / (1 + math.exp(1.5)), 0.0])


def test_without_a_limit_nothing_is_clamped() -> None:
    margins = torch.tensor([1e6])
    assert clamped(margins, None) is margins


def test_beta_rises_in_a_line_and_is_whole_at_the_warm_ups_end() -> None:
    assert [warmed_up(0.015, step, 100) for step in (1, 50, 100, 101, 2000)] == pytest.approx(
        [0.00015, 0.0075, 0.015, 0.015, 0.015]
    )
    assert warmed_up(0.015, 1, 0) == 0.015


def test_the_reward_loss_is_minus_log_sigmoid_of_the_difference() -> None:
    assert reward_loss(torch.tensor([[3.0, 2.0], [0.5, 1.5]])).tolist() == pytest.approx([0.3132617, 1.3132617])


RATIOS = torch.tensor([[30.0, 6.0], [-4.0, -8.0]])  # margins 24 and 4
LENGTHS = torch.tensor([[10.0, 3.0], [2.0, 4.0]])  # per token: 3 - 2 = 1 and -2 - -2 = 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [math.log1p(math.exp(-2.4)), math.log1p(math.exp(-0.4))]),
        ({"margin_clamp": 20}, [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-0.4))]),
        ({"loss": "sigmoid_norm"}, [math.log1p(math.exp(-0.1)), math.log(2)]),
        ({"loss": "ipo"}, [(1 - 5) ** 2, 25.0]),
        ({"label_smoothing": 0.25}, [math.log1p(math.exp(-2.4)) + 0.25 * 2.4, math.log1p(math.exp(-0.4)) + 0.25 * 0.4]),
    ],
)
def test_a_config_chooses_its_loss(settings: dict[str, object], expected: list[float]) -> None:
    losses, _ = preference_loss(config(**settings), RATIOS, LENGTHS, beta=0.1)
    assert losses.tolist() == pytest.approx(expected)


def test_which_margins_were_clamped_is_counted() -> None:
    _, cut = preference_loss(config(margin_clamp=20), RATIOS, LENGTHS, beta=0.1)
    assert cut.tolist() == [True, False]
