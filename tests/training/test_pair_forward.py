"""Against transformers on each answer alone, with its own attention and its own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.pairs import UNEQUAL, random_pairs
from tests.training.small import make_model
from training.config import DpoConfig
from training.data.pairs import PairSet
from training.device import Device
from training.forward import packed_forward, padded_forward
from training.loading import load_model, prepare_for_training
from training.pair_forward import PairForward, prepare_pair_forward

CPU = Device(torch.device("cpu"), half=False)
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen2 tied": {"tie_word_embeddings": True},
    "llama": {},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "phi": {},  # its head has a bias
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 4096},  # soft caps
    "mistral": {"sliding_window": 16},
    "mistral wide": {"sliding_window": 128},
    "bloom": {"n_head": 4, "n_layer": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0},  # ALiBi
}
PADDED = {"gemma2", "mistral", "bloom"}
ALL = list(range(len(UNEQUAL)))


def alone(model: Any, pairs: PairSet, chosen: list[int]) -> Tensor:
    """Summed log-probabilities of each answer, every sequence by itself through the whole model: (n, 2)."""
    sums = []
    for index in chosen:
        prompt, *answers = pairs.parts(index)
        for answer in answers:
            ids = torch.from_numpy(np.concatenate([pairs.ids[prompt], pairs.ids[answer]]).astype(np.int64))
            scored = torch.from_numpy(np.concatenate([pairs.scored[prompt], pairs.scored[answer]]))
            logprobs = model(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
            sums.append(logprobs.gather(1, ids[1:, None])[:, 0][scored[1:]].sum())
    return torch.stack(sums).view(-1, 2)


def gradients(model: Any, logprobs: Tensor) -> dict[str, Tensor]:
    """Of a loss that weighs every answer otherwise, so that none can hide behind another."""
    model.zero_grad()
    weights = torch.linspace(-1, 1.5, logprobs.numel()).view_as(logprobs)
    (weights * logprobs).sum().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_as_alone(forward: PairForward, folder: Path, pairs: PairSet, chosen: list[int]) -> None:
    model = load_model(folder).model
    expected = alone(model, pairs, chosen)
    forward.model.train()
    found = forward.logprobs(pairs, chosen)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted, got = gradients(model, expected), gradients(forward.model, found)
    assert got.keys() == wanted.keys()
    for name, each in wanted.items():
        scale = float(each.abs().max())
        torch.testing.assert_close(got[name], each, rtol=1e-5, atol=max(1e-5 * scale, 1e-6), msg=lambda m, n=name: f"{n}: {m}")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_and_gradients_are_those_of_each_answer_alone(kind: str, tmp_path: Path) -> None:
    make_model(tmp_path, kind.split(maxsplit=1)[0], **KINDS[kind])
    forward, _ = prepare_pair_forward(load_model(tmp_path).model, CPU, 128)
    assert (forward.shared, forward.padded) == (kind not in PADDED, kind in PADDED)
    assert_as_alone(forward, tmp_path, random_pairs(), ALL)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_without_a_shared_prompt_it_is_the_same(layout: str, tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path).model
    prepared = packed_forward(model, CPU) if layout == "packed" else padded_forward(model, CPU)
    assert_as_alone(PairForward(prepared, shared=False), tmp_path, random_pairs(), ALL)


def test_a_micro_batch_of_one_pair_and_any_order_of_pairs(tmp_path: Path) -> None:
    make_model(tmp_path)
    forward, _ = prepare_pair_forward(load_model(tmp_path).model, CPU, 128)
    for chosen in ([2], [1], [4, 0, 3]):
        assert_as_alone(forward, tmp_path, random_pairs(), chosen)


def test_other_tokens_in_one_answer_change_nothing_in_the_other_nor_in_other_pairs(tmp_path: Path) -> None:
    make_model(tmp_path)
    forward, _ = prepare_pair_forward(load_model(tmp_path).model, CPU, 128)
    pairs = random_pairs()
    _, chosen, _ = pairs.parts(1)
    ids = pairs.ids.copy()
    ids[chosen] = (ids[chosen] + 17) % 250
    with torch.no_grad():
        before = forward.logprobs(pairs, ALL)
        after = forward.logprobs(PairSet(ids, pairs.scored, pairs.offsets, pairs.source), ALL)
    changed = (before != after).nonzero().tolist()
    assert changed == [[1, 0]]


def test_bf16_is_close_to_fp32(tmp_path: Path) -> None:
    make_model(tmp_path)
    exact, _ = prepare_pair_forward(load_model(tmp_path).model, CPU, 128)
    rough, _ = prepare_pair_forward(load_model(tmp_path).model, Device(torch.device("cpu"), half=True), 128)
    pairs = random_pairs()
    with torch.no_grad():
        found = rough.logprobs(pairs, ALL)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact.logprobs(pairs, ALL), rtol=1e-2, atol=0.1)


def test_lora_and_gradient_checkpointing_change_neither_logprobs_nor_gradients(tmp_path: Path) -> None:
    make_model(tmp_path)
    pairs, found = random_pairs(), {}
    for checkpointing in (False, True):
        loaded = load_model(tmp_path)
        forward, _ = prepare_pair_forward(loaded.model, CPU, 128)
        config = DpoConfig(
            model="new:micro", dataset=["data:x"], lora_rank=4, gradient_checkpointing=checkpointing, precision="fp32"
        )
        prepare_for_training(loaded, config, CPU)
        forward.model.train()
        logprobs = forward.logprobs(pairs, ALL)
        torch.testing.assert_close(logprobs, alone(load_model(tmp_path).model, pairs, ALL), rtol=1e-5, atol=1e-5)
        found[checkpointing] = gradients(forward.model, logprobs)
    assert found[False] and all("lora_" in name for name in found[False])
    for name, each in found[False].items():
        torch.testing.assert_close(found[True][name], each)


def test_a_pair_costs_what_its_layout_computes(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path).model
    pairs = random_pairs([(5, 7, 9), (1, 3, 2)])
    shared, _ = prepare_pair_forward(model, CPU, 128)
    assert prepare_pair_forward(model, CPU, 128)[0] == shared, "a model that is prepared can be prepared again"
    assert shared.lengths(pairs).tolist() == [21, 6]
    assert PairForward(packed_forward(model, CPU), shared=False).lengths(pairs).tolist() == [26, 7]
    assert PairForward(padded_forward(model, CPU), shared=False).lengths(pairs).tolist() == [28, 8]


def test_how_pairs_are_run_is_said_with_the_reason(tmp_path: Path) -> None:
    make_model(tmp_path, "mistral", sliding_window=16)
    _, how = prepare_pair_forward(load_model(tmp_path).model, CPU, 16)
    assert how == "The prompt of a pair is computed once, for both answers (PyTorch's own attention)."
    _, how = prepare_pair_forward(load_model(tmp_path).model, CPU, 17)
    assert how == (
        "The answers of a pair are padded to the longest beside them, each with its prompt, which is slower: "
        "its attention sees only the last 16 tokens."
    )
