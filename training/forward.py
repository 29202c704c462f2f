"""One micro-batch through a model: examples in, the log-probabilities of their scored tokens out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.attention import FLASH, PACKED, attending, flash_is_usable, packed_inputs, why_not_packed
from training.data.encoding import TokenSet
from training.data.packing import pack, pad
from training.device import Device
from training.logprobs import logits_logprobs, token_logprobs


@dataclass(frozen=True)
class Forward:
    """How a model is run. `attention`: PACKED or FLASH where examples lie end to end, None where they are padded.

    `own_head`: the model computes its logits in some way of its own, so that they are taken from it whole.
    """

    model: PreTrainedModel
    device: Device
    attention: str | None
    own_head: bool

    def logprobs(self, tokens: TokenSet, chosen: Sequence[int]) -> Tensor:
        """log p of every scored token under those before it in its example: (N,), fp32, example by example."""
        if self.attention is None:
            batch = pad(tokens, chosen, pad_id=0)
            inputs: dict[str, Any] = {"attention_mask": torch.from_numpy(batch.attention_mask)}
            ids, scored = batch.ids, batch.scored
        else:
            packed = pack(tokens, chosen)
            inputs = packed_inputs(packed, self.attention)
            ids, scored = packed.ids[None], packed.scored[None]
        inputs = {name: self._here(each) for name, each in inputs.items()} | {"use_cache": False}
        # The state at each place predicts the token behind it, and no example's first token is scored.
        rows, places = (self._here(torch.from_numpy(each)) for each in np.nonzero(scored[:, 1:]))
        targets = self._here(torch.from_numpy(ids[scored]))
        inputs["input_ids"] = self._here(torch.from_numpy(ids))
        with self.device.autocast():
            if self.own_head:
                return logits_logprobs(self.model(**inputs).logits[rows, places], targets)
            hidden = self.model.base_model(**inputs)[0][rows, places]
        weight = self.model.get_output_embeddings().weight
        return token_logprobs(hidden.to(torch.bfloat16 if self.device.half else weight.dtype), weight, targets)

    def _here(self, value: Any) -> Any:
        return value.to(self.device.torch, non_blocking=True) if isinstance(value, Tensor) else value


def scored_count(tokens: TokenSet, chosen: Sequence[int]) -> int:
    """How many tokens of these examples are targets."""
    return sum(int(tokens[index][1].sum()) for index in chosen)


def prepare_forward(model: PreTrainedModel, device: Device, max_length: int, packing: bool) -> tuple[Forward, str]:
    """Choose how to run a model, and set its attention. Returns it, and a sentence that says what was chosen."""
    model.eval()
    own_head = not _head_is_one_projection(model)
    reason = why_not_packed(model, max_length) if packing else "packing is off"
    attention = None
    if reason is None:
        attention = FLASH if flash_is_usable(model, device.torch, device.half) else PACKED
        model.set_attn_implementation(attention)
    how = {
        PACKED: "Examples are packed end to end, each blind to the others (PyTorch's own attention).",
        FLASH: "Examples are packed end to end, each blind to the others (flash-attn).",
        None: f"Examples are padded to the longest beside them, which is slower: {reason}.",
    }[attention]
    return Forward(model, device, attention, own_head), how


@torch.no_grad()
def _head_is_one_projection(model: PreTrainedModel) -> bool:
    """Whether logits are last states times the output embedding and nothing else: no bias, scale or soft cap.

    A scale is found by computing both; a soft cap hardly bends the small logits of an untrained model, so it is
    looked for by name.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    settings = model.config.get_text_config().to_dict()
    if any("logit" in key and "soft" in key and "cap" in key and value for key, value in settings.items()):
        return False
    ids = torch.arange(min(16, head.weight.shape[0]), device=head.weight.device)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    ours = head(model.base_model(input_ids=ids, use_cache=False)[0])
    return logits.shape == ours.shape and bool((logits - ours).abs().max() <= 1e-4 * logits.abs().max())


def usual_attention(model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
    """For a while, the attention that knows masks and a cache: for generating."""
    if model.config._attn_implementation != PACKED:
        return attending(model, model.config._attn_implementation)
    return attending(model, "sdpa" if model._supports_sdpa else "eager")
