"""Pairs of answers through a model, each prompt once: the log-probabilities of both answers, or their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from training.attention import why_not_packed
from training.data.packing import Packed, Padded, sequences_of, share
from training.data.pairs import PairSet
from training.device import Device
from training.forward import Forward, packed_forward, padded_forward


@dataclass(frozen=True)
class PairForward:
    """How a model is run on pairs. `shared`: both answers go on from one prompt; else they are sequences of their own."""

    forward: Forward
    shared: bool

    @property
    def model(self) -> PreTrainedModel:
        return self.forward.model

    @property
    def device(self) -> Device:
        return self.forward.device

    @property
    def padded(self) -> bool:
        return self.forward.attention is None

    def lengths(self, pairs: PairSet) -> NDArray[np.int64]:
        """Tokens that each pair costs in a micro-batch, (n,)."""
        prompt, chosen, rejected = pairs.part_lengths.T
        if self.padded:
            return 2 * (prompt + np.maximum(chosen, rejected))
        return (1 if self.shared else 2) * prompt + chosen + rejected

    def logprobs(self, pairs: PairSet, chosen: Sequence[int]) -> Tensor:
        """log p of the chosen and of the rejected answer under the prompt, summed over scored tokens: (n, 2), fp32."""
        logprobs = self.forward.scored_logprobs(self._lay(pairs, chosen))
        answers = logprobs.split(pairs.scored_lengths[list(chosen)].flatten().tolist())
        return torch.stack([answer.sum() for answer in answers]).view(-1, 2)

    def rewards(self, pairs: PairSet, chosen: Sequence[int]) -> Tensor:
        """The score of the state at the last token of the chosen and of the rejected answer: (n, 2), fp32."""
        batch = self._lay(pairs, chosen)
        states = self.forward.states(batch, batch.ends)
        score: Any = self.model.score
        rewards: Tensor = score(states.to(score.weight.dtype))
        return rewards.float().view(-1, 2)

    def _lay(self, pairs: PairSet, chosen: Sequence[int]) -> Packed | Padded:
        return share(pairs, chosen) if self.shared else self.forward.lay(sequences_of(pairs, chosen))


def prepare_pair_forward(model: PreTrainedModel, device: Device, max_length: int) -> tuple[PairForward, str]:
    """Choose how to run a model on pairs, and set its attention. Returns it, and a sentence that says what was chosen."""
    model.eval()
    not_shared = why_not_packed(model, max_length, shared=True)
    if not_shared is None:
        forward = packed_forward(model, device)
        return PairForward(forward, shared=True), (
            f"The prompt of a pair is computed once, for both answers ({forward.kernel})."
        )
    not_packed = why_not_packed(model, max_length)
    if not_packed is None:
        forward = packed_forward(model, device)
        return PairForward(forward, shared=False), (
            "The answers of a pair are packed end to end, each with a prompt of its own, which is slower: "
            f"{not_shared} ({forward.kernel})."
        )
    return PairForward(padded_forward(model, device), shared=False), (
        f"The answers of a pair are padded to the longest beside them, each with its prompt, which is slower: {not_packed}."
    )
