"""The losses, as pure functions of log-probabilities."""

from __future__ import annotations

from torch import Tensor


def sft_loss(logprobs: Tensor, total: int) -> Tensor:
    """Negative log-likelihood of the scored tokens: -sum(log p(token | those before it)) / total.

    logprobs (N,): of one micro-batch's scored tokens. `total`: scored tokens of the whole optimizer step, so that the
    micro-batches' losses add up to the mean over the step, however it was cut. Returns a scalar.
    """
    return -logprobs.sum() / total
