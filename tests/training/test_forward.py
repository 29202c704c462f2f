"""Against transformers' own loss on padded batches, for architectures that differ where it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.small import chats, make_model
from training.attention import PACKED
from training.data.encoding import TokenSet, encode_examples
from training.data.examples import Example
from training.device import Device
from training.forward import Forward, prepare_forward, scored_count
from training.loading import load_model
from training.losses import sft_loss
from training.tokenizer import load_tokenizer

CPU = Device(torch.device("cpu"), half=False)
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen2 tied": {"tie_word_embeddings": True},
    "llama": {},
    "qwen3": {"head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "gpt_neox": {},
    "phi": {},  # its head has a bias
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 4096},
    "mistral": {"sliding_window": 16},
    "bloom": {"n_head": 4, "n_layer": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0},
}
PACKABLE = {"qwen2", "qwen2 tied", "llama", "qwen3", "gpt2", "gpt_neox", "phi", "cohere", "granite"}
OWN_HEAD = {"phi", "cohere", "granite", "gemma2"}


def prepared(folder: Path, kind: str, packing: bool = True) -> tuple[Forward, TokenSet]:
    make_model(folder, kind.split(maxsplit=1)[0], **KINDS[kind])
    tokenizer = load_tokenizer(folder)
    examples = [Example(messages=row["messages"]) for row in chats(9, turns=3)]
    tokens = encode_examples(examples, tokenizer, 128, "assistant")
    forward, _ = prepare_forward(load_model(folder).model, CPU, 128, packing)
    return forward, tokens


def transformers_loss(folder: Path, tokens: TokenSet, chosen: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Its own loss over a padded batch with labels, and the gradients."""
    model = load_model(folder).model.train()
    longest = max(len(tokens[i][0]) for i in chosen)
    ids = torch.zeros(len(chosen), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, index in enumerate(chosen):
        example, scored = tokens[index]
        ids[row, : len(example)] = torch.from_numpy(example)
        mask[row, : len(example)] = 1
        labels[row, : len(example)] = torch.from_numpy(np.where(scored, example, -100))
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_transformers_on_padded_batches(kind: str, tmp_path: Path) -> None:
    forward, tokens = prepared(tmp_path, kind)
    assert (forward.attention == PACKED) == (kind in PACKABLE)
    assert forward.own_head == (kind in OWN_HEAD)
    forward.model.train()
    chosen = list(range(len(tokens)))
    loss = sft_loss(forward.logprobs(tokens, chosen), scored_count(tokens, chosen))
    loss.backward()
    expected, gradients = transformers_loss(tmp_path, tokens, chosen)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in forward.model.named_parameters():
        if name in gradients:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=2e-6)


def test_packed_and_padded_give_the_same_token_by_token(tmp_path: Path) -> None:
    packed, tokens = prepared(tmp_path / "a", "qwen2")
    padded, _ = prepared(tmp_path / "b", "qwen2", packing=False)
    assert padded.attention is None
    with torch.no_grad():
        torch.testing.assert_close(
            packed.logprobs(tokens, [3, 0, 7]), padded.logprobs(tokens, [3, 0, 7]), rtol=1e-5, atol=1e-5
        )


def test_other_tokens_in_one_example_change_nothing_in_another(tmp_path: Path) -> None:
    forward, tokens = prepared(tmp_path, "qwen2")
    ids = tokens.ids.copy()
    start, end = tokens.offsets[1], tokens.offsets[2]
    ids[start:end] = (ids[start:end] + 17) % 200
    changed = TokenSet(ids, tokens.scored, tokens.offsets, tokens.source)
    with torch.no_grad():
        before, after = forward.logprobs(tokens, [0, 1, 2]), forward.logprobs(changed, [0, 1, 2])
    first, second = (int(tokens[index][1].sum()) for index in (0, 1))
    assert torch.equal(before[:first], after[:first])
    assert not torch.equal(before[first : first + second], after[first : first + second])
    assert torch.equal(before[first + second :], after[first + second :])


def test_an_example_does_not_depend_on_its_place_in_the_pack(tmp_path: Path) -> None:
    forward, tokens = prepared(tmp_path, "qwen2")
    with torch.no_grad():
        alone = [forward.logprobs(tokens, [index]) for index in (4, 1, 5)]
        torch.testing.assert_close(forward.logprobs(tokens, [4, 1, 5]), torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_step(tmp_path: Path) -> None:
    forward, tokens = prepared(tmp_path, "qwen2")
    total = scored_count(tokens, range(9))

    def gradient(cuts: list[list[int]]) -> dict[str, Tensor]:
        forward.model.zero_grad()
        for chosen in cuts:
            sft_loss(forward.logprobs(tokens, chosen), total).backward()
        return {name: each.grad.clone() for name, each in forward.model.named_parameters() if each.grad is not None}

    whole, cut = gradient([list(range(9))]), gradient([[0, 1, 2, 3], [4], [5, 6, 7, 8]])
    for name, each in whole.items():
        torch.testing.assert_close(each, cut[name], rtol=1e-4, atol=1e-6)


def test_why_a_model_is_not_packed_is_said(tmp_path: Path) -> None:
    make_model(tmp_path, "mistral", sliding_window=16)
    _, how = prepare_forward(load_model(tmp_path).model, CPU, 128, packing=True)
    assert how == (
        "Examples are padded to the longest beside them, which is slower: its attention sees only the last 16 tokens."
    )
    forward, _ = prepare_forward(load_model(tmp_path).model, CPU, 16, packing=True)
    assert forward.attention == PACKED, "a window as long as the longest example hides nothing"
