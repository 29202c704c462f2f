"""Attention over sequences that lie end to end in one row, each blind to the others but for a beginning that it shares.

transformers hands every attention layer to a function that it finds by name, and both functions here are found so.
`PACKED` is PyTorch's own attention, segment by segment; `FLASH` is flash-attn's variable-length kernel, all segments
at once. So no T x T mask exists and nothing is spent on padding.

Shapes: T tokens of all sequences of a micro-batch, K keys (those of shared beginnings counted once a sequence), H query
heads, G key and value heads, E head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from training.data.packing import Packed, Segment, pack, share
from training.data.pairs import PairSet

PACKED = "preflab_packed"
FLASH = "preflab_variable_length"  # with "flash" in its name, transformers would take it for one of its own


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Sequence[Segment] = (),
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each sequence. query (1, H, T, E); key, value (1, G, T, E). Returns (1, T, H, E).

    Raises ValueError for what it does not do (a mask, soft-capped scores), so that nothing is computed wrongly.
    """
    _check_segments(query, attention_mask, segments[-1].end if segments else 0, others)
    dtype = _attention_dtype(query)
    with torch.autocast(query.device.type, enabled=False):
        query_, key, value = (each.to(dtype) for each in (query, key, value))
        parts = [_attend(query_, key, value, segment, dropout, scaling) for segment in segments]
        return torch.cat(parts, 2).transpose(1, 2).to(query.dtype).contiguous(), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, segment: Segment, dropout: float, scaling: float | None
) -> Tensor:
    """What one segment's tokens see, (1, H, its tokens, E)."""
    own, prefix = slice(segment.start, segment.end), slice(*segment.prefix)
    mask = None
    key_, value_ = key[:, :, own], value[:, :, own]
    if segment.seen > len(segment):
        key_, value_ = torch.cat([key[:, :, prefix], key_], 2), torch.cat([value[:, :, prefix], value_], 2)
        # A triangle at the bottom right: faster than asking for the prefix's tokens too and dropping what they get.
        mask = torch.ones(len(segment), segment.seen, dtype=torch.bool, device=query.device)
        mask = mask.tril_(segment.seen - len(segment))
    return scaled_dot_product_attention(
        query[:, :, own], key_, value_, mask, dropout, is_causal=mask is None, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


@dataclass(frozen=True)
class FlashLayout:
    """A row's segments as the variable-length kernel takes them. The limits are int32, (segments + 1,)."""

    query_limits: Tensor  # segment i asks with the places query_limits[i] to query_limits[i + 1] of the row
    key_limits: Tensor  # and looks at the keys key_limits[i] to key_limits[i + 1]
    keys: Tensor | None  # (K,): where in the row each key lies; None where it is the row itself
    longest_query: int
    longest_key: int


def flash_layout(segments: Sequence[Segment], device: torch.device) -> FlashLayout:
    """The keys of a segment are its prefix's and its own; the kernel aligns queries and keys at their ends."""
    asked, seen = [len(each) for each in segments], [each.seen for each in segments]
    alone = asked == seen
    return FlashLayout(
        torch.from_numpy(np.cumsum([0, *asked], dtype=np.int32)).to(device),
        torch.from_numpy(np.cumsum([0, *seen], dtype=np.int32)).to(device),
        None if alone else torch.from_numpy(np.concatenate([each.places for each in segments])).to(device),
        max(asked),
        max(seen),
    )


def variable_length_attention(
    kernel: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: FlashLayout,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """The same through a kernel with flash_attn_varlen_func's arguments (flash-attn 2.1 or newer).

    query (1, H, T, E); key, value (1, G, T, E). Returns (1, T, H, E).
    """
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    if layout.keys is not None:
        key, value = key.index_select(0, layout.keys), value.index_select(0, layout.keys)
    return kernel(
        query, key, value,
        cu_seqlens_q=layout.query_limits, cu_seqlens_k=layout.key_limits,
        max_seqlen_q=layout.longest_query, max_seqlen_k=layout.longest_key,
        dropout_p=dropout, softmax_scale=scaling, causal=True,
    )[None]  # fmt: skip


def flash_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: FlashLayout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As packed_attention, with flash-attn's kernel. Raises ValueError where that does."""
    from flash_attn import flash_attn_varlen_func

    if layout is None:
        raise ValueError("packed attention needs to be told the segments")
    _check_segments(query, attention_mask, query.shape[2], others)
    dtype = _attention_dtype(query)
    whole = variable_length_attention(
        flash_attn_varlen_func, query.to(dtype), key.to(dtype), value.to(dtype), layout, dropout, scaling
    )
    return whole.to(query.dtype), None


# No mask function is registered under these names: transformers then makes none.
AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(FLASH, flash_attention)


def _check_segments(query: Tensor, attention_mask: Tensor | None, filled: int, others: dict[str, Any]) -> None:
    if attention_mask is not None or others.get("softcap") is not None or filled != query.shape[2]:
        raise ValueError("packed attention takes segments that fill the row, and neither mask nor soft cap")


def _attention_dtype(query: Tensor) -> torch.dtype:
    """The precision of attention: the computation's on a GPU; fp32 on a CPU, whose kernel is faster so.

    Queries come in fp32 under autocast too, since the rotary embedding is.
    """
    if query.device.type == "cpu":
        return torch.promote_types(query.dtype, torch.float32)
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def packed_inputs(packed: Packed, implementation: str, device: torch.device) -> dict[str, Any]:
    """What a forward pass over a packed row needs beside the tokens, for PACKED or FLASH."""
    inputs: dict[str, Any] = {"position_ids": torch.from_numpy(packed.position_ids).to(device, non_blocking=True)}
    if implementation == PACKED:
        return inputs | {"segments": packed.segments}
    return inputs | {"layout": flash_layout(packed.segments, device)}


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


def why_not_packed(model: PreTrainedModel, max_length: int, shared: bool = False) -> str | None:
    """Why sequences cannot be packed for this model, or None where they can. `shared`: pairs that share a beginning.

    What the architecture says of itself is not enough: two short sequences are run together and alone, and what comes
    out must be the same. A recurrent layer, or one that builds its own mask, fails there.
    """
    window = shortest_window(model)
    if window is not None and window < max_length:
        return f"its attention sees only the last {window:,} tokens"
    try:
        with attending(model, PACKED):
            return (
                None
                if _same_as_alone(model, _trial(model, shared))
                else "its layers let packed examples see each other"
            )
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


def _trial(model: PreTrainedModel, shared: bool) -> Packed:
    """Two short sequences in a row: of 5 + 6 and 5 + 8 tokens that share the first 5, or of 11 and 13 of their own."""
    ids = np.random.default_rng(0).integers(0, embedding_rows(model), 24).astype(np.int32)
    scored = np.zeros(24, np.bool_)
    if shared:
        return share(PairSet(ids[:19], scored[:19], np.array([0, 5, 11, 19]), np.arange(1)), [0])
    return pack([(ids[:11], scored[:11]), (ids[11:], scored[11:])])


@torch.no_grad()
def _same_as_alone(model: PreTrainedModel, packed: Packed) -> bool:
    """Whether the states of a row's sequences are what the model makes of each by itself."""
    if model.config._attn_implementation != PACKED:  # the architecture does not let it be set
        return False
    device = next(model.parameters()).device
    ids = torch.from_numpy(packed.ids).to(device)
    inputs = packed_inputs(packed, PACKED, device)
    together = model.base_model(input_ids=ids, use_cache=False, **inputs)[0].float()
    with attending(model, "sdpa" if model._supports_sdpa else "eager"):
        for segment in packed.segments:
            places = torch.from_numpy(segment.places).to(device)
            alone = model.base_model(input_ids=ids[:, places], use_cache=False)[0].float()
            if not bool((together[:, places] - alone).abs().max() <= 1e-3 * alone.abs().max()):
                return False
    return True
