"""Attention over segments, against a mask over the whole row; the layout for flash-attn with a kernel of our own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.pairs import random_pairs
from training.attention import flash_layout, packed_attention, variable_length_attention
from training.data.packing import Packed, pack, sequences_of, share

PAIRS = random_pairs()


def layouts() -> dict[str, Packed]:
    return {"shared": share(PAIRS, range(len(PAIRS))), "packed": pack(sequences_of(PAIRS, range(len(PAIRS))))}


def tensors(packed: Packed, heads: int = 4, groups: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    length = packed.ids.size
    return (
        torch.randn(1, heads, length, 8, generator=draw, requires_grad=True),
        torch.randn(1, groups, length, 8, generator=draw, requires_grad=True),
        torch.randn(1, groups, length, 8, generator=draw, requires_grad=True),
    )


def masked(packed: Packed, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Each place sees what its sequence holds up to itself: (1, T, H, E), by a T x T mask."""
    length = packed.ids.size
    seen = torch.zeros(length, length, dtype=torch.bool)
    for segment in packed.segments:
        for place in range(segment.start, segment.end):
            seen[place, slice(*segment.prefix)] = True
            seen[place, segment.start : place + 1] = True
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~seen, -math.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def reference_kernel(
    query: Tensor, key: Tensor, value: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
    max_seqlen_k: int, dropout_p: float, softmax_scale: float, causal: bool,
) -> Tensor:  # fmt: skip
    """What flash_attn_varlen_func does: query (T, H, E); the causal mask is aligned at the bottom right."""
    assert causal and dropout_p == 0 and cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    parts = []
    asked, looked = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert max(asked) == max_seqlen_q and max(looked) == max_seqlen_k
    for q, k, v in zip(query.split(asked), key.split(looked), value.split(looked), strict=True):
        many = q.shape[1] // k.shape[1]
        scores = torch.einsum("qhe,khe->hqk", q, k.repeat_interleave(many, 1)) * softmax_scale
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(len(k) - len(q) + 1)
        parts.append(torch.einsum("hqk,khe->qhe", scores.masked_fill(hidden, -math.inf).softmax(-1), v.repeat_interleave(many, 1)))  # fmt: skip
    return torch.cat(parts)


def with_gradients(output: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [output.detach(), *torch.autograd.grad((weights * output).sum(), inputs)]


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_segments_see_what_a_mask_over_the_row_would_let_them(layout: str) -> None:
    packed = layouts()[layout]
    inputs = tensors(packed)
    expected = with_gradients(masked(packed, *inputs, 0.3), inputs)
    found, _ = packed_attention(nn.Identity(), *inputs, None, scaling=0.3, segments=packed.segments)
    for mine, theirs in zip(with_gradients(found, inputs), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_the_variable_length_kernel_is_given_the_same_problem(layout: str) -> None:
    packed = layouts()[layout]
    inputs = tensors(packed)
    limits = flash_layout(packed.segments, torch.device("cpu"))
    assert (limits.keys is None) == (layout == "packed"), "keys are gathered only where a prompt is shared"
    expected = with_gradients(masked(packed, *inputs, 0.3), inputs)
    found = variable_length_attention(reference_kernel, *inputs, limits, scaling=0.3)
    for mine, theirs in zip(with_gradients(found, inputs), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"softcap": 30.0}, {"attention_mask": torch.ones(1)}, {"segments": ()}])
def test_what_it_cannot_do_is_refused(wrong: dict[str, Any]) -> None:
    packed = layouts()["shared"]
    arguments = {"attention_mask": None, "segments": packed.segments, **wrong}
    with pytest.raises(ValueError, match="neither mask nor soft cap"):
        packed_attention(nn.Identity(), *tensors(packed), **arguments)
