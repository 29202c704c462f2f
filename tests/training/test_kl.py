"""KL of the next token, by hand."""

from __future__ import annotations

import pytest
import torch

from training.kl import token_kl


def test_a_model_is_at_no_distance_from_itself() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert token_kl(logits, logits + 3).abs().max() < 1e-6  # a constant changes no probability


def test_the_distance_is_that_from_policy_to_reference() -> None:
    policy, reference = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    # 0.5 ln(0.5 / 0.9) + 0.5 ln(0.5 / 0.1) = 0.510826; the other way round it would be 0.368064
    assert token_kl(policy, reference).tolist() == pytest.approx([0.510826], abs=1e-6)
