"""AdamW, the learning rate's schedule, and clipping."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), weight decay decoupled and only on matrices: not on norms and biases."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.adam_beta1, config.adam_beta2)
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=device.type in {"cuda", "cpu"})


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """The learning rate of a step (from 1 to total).

    It rises in a line over the warm-up, reaching the peak at its last step; then it stays, or falls along a line or
    half a cosine, so that the step after the last would have 0.
    """
    warmup = config.warmup_steps
    if step <= warmup:
        return config.learning_rate * step / warmup
    done = (step - 1 - warmup) / max(1, total - warmup)
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return config.learning_rate * shape[config.lr_schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def clip_gradient(model: nn.Module, longest: float | None) -> Tensor:
    """Scale the gradient down to the norm `longest` where it is longer. Returns its norm before, a scalar."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if longest is not None:
        parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
        nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return norm
