from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from training.config import SftConfig
from training.optimizer import clip_gradient, learning_rate, make_optimizer


def config(**settings: Any) -> SftConfig:
    return SftConfig(model="new:micro", dataset=["data:chats"], learning_rate=0.4, **settings)


def test_the_rate_rises_to_its_peak_over_the_warm_up() -> None:
    rates = [learning_rate(step, 20, config(warmup_steps=4)) for step in range(1, 6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_a_line_falls_to_what_would_be_nothing_one_step_after_the_last() -> None:
    rates = [learning_rate(step, 4, config(lr_schedule="linear")) for step in (1, 2, 3, 4, 5)]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])


def test_a_cosine_is_at_half_its_peak_in_the_middle() -> None:
    rates = [learning_rate(step, 4, config(lr_schedule="cosine")) for step in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5))])


def test_a_constant_rate_stays() -> None:
    assert {learning_rate(step, 9, config(lr_schedule="constant")) for step in range(1, 10)} == {0.4}


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = make_optimizer(model, config(weight_decay=0.5, lr_schedule="constant"), torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.4 * 0.5))
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(after[name], before[name])


def test_a_long_gradient_is_scaled_down_and_its_length_told() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradient(model, 1.0).item() == pytest.approx(5.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))
    assert clip_gradient(model, None).item() == pytest.approx(1.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))
