"""How far a model has gone from its reference."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from training.device import Device
from training.forward import usual_attention


@torch.no_grad()
def answer_logits(model: Any, device: Device, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The logits that each token of an answer is drawn from: (tokens of the answer, V), in fp32."""
    ids = torch.tensor([[*prompt, *answer]], device=device.torch)
    few = "logits_to_keep" in inspect.signature(model.forward).parameters  # nearly all models; the prompt's cost memory
    with usual_attention(model), device.autocast():
        logits: Tensor = model(
            input_ids=ids, use_cache=False, **({"logits_to_keep": len(answer) + 1} if few else {})
        ).logits
    return logits[0, -len(answer) - 1 : -1].float()


def token_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of the next token, over the whole vocabulary, place by place.

    Logits (T, V) of both; returns (T,) in nats. No estimate from samples: exact at each place.
    """
    policy, reference = log_softmax(policy, -1), log_softmax(reference, -1)
    return kl_div(reference, policy, reduction="none", log_target=True).sum(-1)
