"""Attention over examples that lie end to end in one row, each blind to the others.

transformers hands every attention layer to a function that it finds by name. `PACKED` is ours: causal attention per
example, so that no T x T mask exists and nothing is spent on padding. With flash-attn installed, its variable-length
kernel does the same, driven by the same arguments.

Shapes: T tokens of all examples of a micro-batch, H query heads, G key and value heads, E head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from training.data.packing import Packed

PACKED = "preflab_packed"
FLASH = "flash_attention_2"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segment_lengths: Sequence[int] = (),
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment. query (1, H, T, E); key, value (1, G, T, E). Returns (1, T, H, E).

    Raises ValueError for what it does not do (a mask, soft-capped scores), so that nothing is computed wrongly.
    """
    if attention_mask is not None or others.get("softcap") is not None or sum(segment_lengths) != query.shape[2]:
        raise ValueError("packed attention takes segments that fill the row, and neither mask nor soft cap")
    grouped = query.shape[1] != key.shape[1]
    lengths = list(segment_lengths)
    dtype = _attention_dtype(query)
    with torch.autocast(query.device.type, enabled=False):
        parts = [
            scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
            for q, k, v in zip(*(each.to(dtype).split(lengths, 2) for each in (query, key, value)), strict=True)
        ]
        return torch.cat(parts, 2).transpose(1, 2).to(query.dtype).contiguous(), None


# No mask function is registered under this name: transformers then makes none.
AttentionInterface.register(PACKED, packed_attention)


def _attention_dtype(query: Tensor) -> torch.dtype:
    """The precision of attention: the computation's on a GPU; fp32 on a CPU, whose kernel is faster so.

    Queries come in fp32 under autocast too, since the rotary embedding is.
    """
    if query.device.type == "cpu":
        return torch.promote_types(query.dtype, torch.float32)
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def packed_inputs(packed: Packed, implementation: str) -> dict[str, Any]:
    """What a forward pass over packed examples needs beside the tokens, for PACKED or FLASH."""
    inputs: dict[str, Any] = {"position_ids": torch.from_numpy(packed.position_ids)[None]}
    if implementation == PACKED:
        return inputs | {"segment_lengths": tuple(np.diff(packed.cu_seqlens).tolist())}
    limits, longest = torch.from_numpy(packed.cu_seqlens), packed.longest
    return inputs | {
        "cu_seq_lens_q": limits, "cu_seq_lens_k": limits, "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip


@contextlib.contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Run the model with another attention function for a while."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def flash_is_usable(model: PreTrainedModel, device: torch.device, half: bool) -> bool:
    """Whether flash-attn can do this model's attention: on a GPU, in bf16."""
    return device.type == "cuda" and half and model._supports_flash_attn and is_flash_attn_2_available()


def why_not_packed(model: PreTrainedModel, max_length: int) -> str | None:
    """Why examples cannot be packed for this model, or None where they can.

    What the architecture says of itself is not enough: two short segments are run together and alone, and what comes
    out must be the same. A recurrent layer, or one that builds its own mask, fails there.
    """
    window = shortest_window(model)
    if window is not None and window < max_length:
        return f"its attention sees only the last {window:,} tokens"
    try:
        with attending(model, PACKED):
            return None if _segments_are_blind(model) else "its layers let packed examples see each other"
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError):
        return "its attention does not go through transformers' attention interface"


def shortest_window(model: PreTrainedModel) -> int | None:
    """The sliding window of any layer, in tokens, or None where all see everything."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    sliding = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    chunk = getattr(config, "attention_chunk_size", None)
    windows = [each for each in (window if sliding else None, chunk) if each]
    return min(windows) if windows else None


def embedding_rows(model: PreTrainedModel) -> int:
    """How many tokens the model has embeddings for."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


@torch.no_grad()
def _segments_are_blind(model: PreTrainedModel) -> bool:
    device = next(model.parameters()).device
    if model.config._attn_implementation != PACKED:  # the architecture does not let it be set
        return False
    vocabulary = embedding_rows(model)
    ids = torch.randint(vocabulary, (1, 24), generator=torch.Generator().manual_seed(0)).to(device)
    first, second = ids[:, :11], ids[:, 11:]

    def run(ids: Tensor, *lengths: int) -> Tensor:
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
        output: Tensor = model.base_model(
            input_ids=ids, position_ids=positions, use_cache=False, segment_lengths=lengths
        )[0]
        return output.float()

    together = run(ids, 11, 13)
    alone = torch.cat([run(first, 11), run(second, 13)], 1)
    with attending(model, "sdpa" if model._supports_sdpa else "eager"):
        usual = torch.cat([model.base_model(input_ids=each, use_cache=False)[0].float() for each in (first, second)], 1)
    close = 1e-3 * usual.abs().max()
    return bool((together - usual).abs().max() <= close and (alone - usual).abs().max() <= close)
