"""One micro-batch through a model: sequences in, the log-probabilities of their scored tokens out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.attention import FLASH, PACKED, attending, flash_is_usable, packed_inputs, why_not_packed
from training.data.encoding import TokenSet
from training.data.packing import Packed, Padded, Tokens, pack, pad
from training.device import Device
from training.logprobs import logits_logprobs, token_logprobs


@dataclass(frozen=True)
class Forward:
    """How a model is run. `attention`: PACKED or FLASH where sequences lie end to end, None where they are padded.

    `own_head`: the model computes its logits in some way of its own, so that they are taken from it whole.
    """

    model: PreTrainedModel
    device: Device
    attention: str | None
    own_head: bool

    @property
    def kernel(self) -> str:
        """Whose attention it is, for people."""
        return "flash-attn" if self.attention == FLASH else "PyTorch's own attention"

    def logprobs(self, tokens: TokenSet, chosen: Sequence[int]) -> Tensor:
        """log p of every scored token under those before it in its example: (N,), fp32, example by example."""
        return self.scored_logprobs(self.lay([tokens[index] for index in chosen]))

    def lay(self, sequences: Sequence[Tokens]) -> Packed | Padded:
        """Sequences end to end, or side by side, as this model takes them."""
        return pad(sequences, pad_id=0) if self.attention is None else pack(sequences)

    def scored_logprobs(self, batch: Packed | Padded) -> Tensor:
        """log p of every scored token of a batch, (N,), fp32, in the batch's order."""
        targets = self._here(batch.targets)
        if self.own_head:
            with self.device.autocast():
                logits = self.model(**self._inputs(batch)).logits
            return logits_logprobs(_at(logits, self._here(batch.states)), targets)
        weight = self.model.get_output_embeddings().weight
        states = self.states(batch, batch.states)
        return token_logprobs(states.to(torch.bfloat16 if self.device.half else weight.dtype), weight, targets)

    def states(self, batch: Packed | Padded, places: NDArray[np.int64]) -> Tensor:
        """The last layer's states at some places of a batch, (places, D), in the precision of the computation."""
        with self.device.autocast():
            return _at(self.model.base_model(**self._inputs(batch))[0], self._here(places))

    def _inputs(self, batch: Packed | Padded) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": self._here(batch.ids), "use_cache": False}
        if isinstance(batch, Padded):
            return inputs | {"attention_mask": self._here(batch.attention_mask)}
        assert self.attention is not None
        return inputs | packed_inputs(batch, self.attention, self.device.torch)

    def _here(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.device.torch, non_blocking=True)


def _at(rows: Tensor, places: Tensor) -> Tensor:
    """Some places of (rows, L, D), counted row after row: (places, D)."""
    return rows.flatten(0, 1).index_select(0, places)


def scored_count(tokens: TokenSet, chosen: Sequence[int]) -> int:
    """How many tokens of these examples are targets."""
    return sum(int(tokens[index][1].sum()) for index in chosen)


def prepare_forward(model: PreTrainedModel, device: Device, max_length: int, packing: bool) -> tuple[Forward, str]:
    """Choose how to run a model, and set its attention. Returns it, and a sentence that says what was chosen."""
    model.eval()
    reason = why_not_packed(model, max_length) if packing else "packing is off"
    if reason is not None:
        return padded_forward(model, device), (
            f"Examples are padded to the longest beside them, which is slower: {reason}."
        )
    forward = packed_forward(model, device)
    return forward, f"Examples are packed end to end, each blind to the others ({forward.kernel})."


def packed_forward(model: PreTrainedModel, device: Device) -> Forward:
    """Run a model on packed rows, with the fastest attention for them that there is here."""
    own_head = not _head_is_one_projection(model)
    attention = FLASH if flash_is_usable(model, device.torch, device.half) else PACKED
    model.set_attn_implementation(attention)
    return Forward(model, device, attention, own_head)


def padded_forward(model: PreTrainedModel, device: Device) -> Forward:
    """Run a model on padded batches, with the attention that it came with."""
    return Forward(model, device, None, not _head_is_one_projection(model))


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
    with usual_attention(model):
        logits = model(input_ids=ids, use_cache=False).logits
        ours = head(model.base_model(input_ids=ids, use_cache=False)[0])
    return logits.shape == ours.shape and bool((logits - ours).abs().max() <= 1e-4 * logits.abs().max())


def usual_attention(model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
    """For a while, the attention that knows masks and a cache: for generating."""
    if model.config._attn_implementation not in {PACKED, FLASH}:
        return attending(model, model.config._attn_implementation)
    return attending(model, "sdpa" if model._supports_sdpa else "eager")
