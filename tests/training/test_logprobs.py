from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.logprobs import logits_logprobs, token_logprobs


def drawn(rows: int = 7, hidden: int = 5, words: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, hidden, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(words, hidden, dtype=torch.float64, generator=generator, requires_grad=True)
    return states, weight, torch.randint(words, (rows,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_it_is_the_log_softmax_at_the_target_however_it_is_cut(chunk: int) -> None:
    states, weight, targets = drawn()
    expected = torch.log_softmax(states @ weight.T, -1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(token_logprobs(states, weight, targets, chunk), expected)


def test_a_number_by_hand() -> None:
    # Logits 0 and ln 3: the second word has 3/4 of the probability.
    states, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [torch.log(torch.tensor(3.0))]])
    assert token_logprobs(states, weight, torch.tensor([1])).exp().item() == pytest.approx(0.75)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_gradients_are_those_of_finite_differences(chunk: int) -> None:
    states, weight, targets = drawn()
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, chunk), (states, weight))


def test_each_row_may_have_a_gradient_of_its_own() -> None:
    states, weight, targets = drawn()
    pull = torch.linspace(-2, 3, len(targets), dtype=torch.float64)
    ours = torch.autograd.grad(token_logprobs(states, weight, targets, 2), (states, weight), pull)
    plain = torch.log_softmax(states @ weight.T, -1).gather(-1, targets[:, None])[:, 0]
    theirs = torch.autograd.grad(plain, (states, weight), pull)
    torch.testing.assert_close(ours, theirs)


def test_a_frozen_head_gets_no_gradient() -> None:
    states, weight, targets = drawn()
    frozen = weight.detach()
    token_logprobs(states, frozen, targets).sum().backward()
    assert states.grad is not None
    assert frozen.grad is None


def test_bf16_states_meet_an_fp32_head_whose_gradient_stays_fp32() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(64, 16, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(50, 16, generator=generator).requires_grad_()
    targets = torch.randint(50, (64,), generator=generator)
    ours = token_logprobs(states, weight, targets, 8)
    assert ours.dtype == torch.float32
    ours.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    exact = weight.detach().clone().requires_grad_()
    torch.log_softmax(states.detach().float() @ exact.T, -1).gather(-1, targets[:, None]).sum().backward()
    assert exact.grad is not None
    assert (weight.grad - exact.grad).norm() < 0.02 * exact.grad.norm()


def test_logits_of_a_models_own_give_the_same() -> None:
    states, weight, targets = drawn()
    torch.testing.assert_close(logits_logprobs(states @ weight.T, targets), token_logprobs(states, weight, targets))
