"""The losses, as pure functions of log-probabilities and scores.

A *log-ratio* is log pi(y | x) - log pi_ref(y | x) of one answer y; a *margin* is the chosen answer's minus the
rejected one's. Shapes: N pairs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def sft_loss(logprobs: Tensor, total: int) -> Tensor:
    """Negative log-likelihood of the scored tokens: -sum(log p(token | those before it)) / total.

    logprobs (N,): of one micro-batch's scored tokens. `total`: scored tokens of the whole optimizer step, so that the
    micro-batches' losses add up to the mean over the step, however it was cut. Returns a scalar.
    """
    return -logprobs.sum() / total


def dpo_loss(margins: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta margin), pair by pair (Rafailov et al. 2023, equation 7). margins (N,); returns (N,)."""
    return -logsigmoid(beta * margins)


def cdpo_loss(margins: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """DPO where a share of the labels is expected to be wrong (Mitchell 2023, "conservative DPO", equation 3).

    Its least value is at sigmoid(beta margin) = 1 - label_smoothing, not at infinity. margins (N,); returns (N,).
    """
    return (1 - label_smoothing) * dpo_loss(margins, beta) + label_smoothing * dpo_loss(-margins, beta)


def ipo_loss(margins: Tensor, beta: float) -> Tensor:
    """(margin - 1 / (2 beta))^2, pair by pair (Azar et al. 2023, equation 17, their tau is beta).

    margins (N,) of log-ratios per token (`per_token`), as its authors compute it. Returns (N,).
    """
    return (margins - 1 / (2 * beta)) ** 2


def per_token(log_ratios: Tensor, lengths: Tensor) -> Tensor:
    """Log-ratios divided by the number of scored tokens of each answer. Both (N, 2); returns (N, 2)."""
    return log_ratios / lengths


def clamped(margins: Tensor, limit: float | None) -> Tensor:
    """Margins cut to [-limit, limit]; there is no gradient beyond, on the badly ranked side either. (N,) to (N,)."""
    return margins if limit is None else margins.clamp(-limit, limit)


def reward_loss(rewards: Tensor) -> Tensor:
    """-log sigmoid(reward of chosen - reward of rejected): Bradley & Terry 1952; Ouyang et al. 2022, equation 1.

    rewards (N, 2); returns (N,).
    """
    return -logsigmoid(rewards[:, 0] - rewards[:, 1])
