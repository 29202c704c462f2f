"""Log-probabilities of tokens from hidden states, without ever holding all logits.

The vocabulary projection of a small model is a quarter of its weights, and its logits are the largest tensor of a
training step: 8,000 tokens of a 150,000-word vocabulary take 4.8 GB. So it runs in chunks, and the backward pass
computes each chunk's logits again from the hidden states and the row's log normaliser.

Shapes: N scored tokens, D hidden size, V vocabulary size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits that exist at once, by device: 8 MiB in fp32, which caches hold, or 256 MiB, which keep a GPU busy."""


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """log softmax(hidden @ weight.T)[targets], row by row.

    hidden (N, D), in the precision of the computation; weight (V, D), in any precision, cast to that of `hidden`;
    targets (N,) int64. Returns (N,), fp32 (fp64 where hidden is). `chunk`: rows at a time; the result is the same.
    """
    rows = chunk or max(1, CHUNK_ELEMENTS.get(weight.device.type, 1 << 23) // weight.shape[0])
    result: Tensor = _TokenLogprobs.apply(hidden, weight, targets, rows)
    return result


class _TokenLogprobs(torch.autograd.Function):
    """With z = hidden @ weight.T and p = softmax(z), d logp[t] / dz = onehot(t) - p."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        cast = weight.to(hidden.dtype)
        picked, normalisers = [], []
        for part, target in zip(hidden.split(rows), targets.split(rows), strict=True):
            logits = _upcast(part @ cast.T)
            normaliser = torch.logsumexp(logits, -1)
            picked.append(logits.gather(-1, target[:, None])[:, 0] - normaliser)
            normalisers.append(normaliser)
        ctx.save_for_backward(hidden, weight, cast, targets, torch.cat(normalisers))
        ctx.rows = rows
        return torch.cat(picked)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, cast, targets, normalisers = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        # Summed over the chunks in the weight's own precision: bf16 would lose what each chunk adds.
        d_weight = torch.zeros_like(weight) if need_weight else None
        for start in range(0, len(hidden), ctx.rows):
            part = slice(start, start + ctx.rows)
            grad = grads[0][part, None].to(normalisers.dtype)
            d_logits = torch.exp_(_upcast(hidden[part] @ cast.T).sub_(normalisers[part, None])).mul_(-grad)
            d_logits.scatter_add_(1, targets[part, None], grad)
            d_logits = d_logits.to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(d_logits, cast, out=d_hidden[part])
            if d_weight is not None:
                d_weight += d_logits.T @ hidden[part]
        return d_hidden, d_weight, None, None


def _upcast(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def logits_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """The same from logits (N, V), for models that do more to them than one projection. Returns (N,)."""
    logits = _upcast(logits)
    return logits.gather(-1, targets[:, None])[:, 0] - torch.logsumexp(logits, -1)
