from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.attention import PACKED
from training.device import Device
from training.forward import prepare_forward
from training.generate import generate, set_ends
from training.loading import load_model
from training.tokenizer import load_tokenizer, stop_ids

CPU = Device(torch.device("cpu"), half=False)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [40], [100, 101, 102]]


@pytest.mark.parametrize("packing", [True, False])
def test_answers_in_a_batch_are_those_of_recomputing_everything_for_each_token(
    small_model: Path, packing: bool
) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    forward, _ = prepare_forward(model, CPU, 128, packing)
    model.train()
    answers = generate(model, tokenizer, CPU, PROMPTS, 12)
    assert model.training, "the mode is left as it was"
    assert (model.config._attn_implementation == PACKED) == (forward.attention == PACKED)
    ends = stop_ids(tokenizer)
    model.set_attn_implementation("eager")
    model.eval()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
        words = ids[len(prompt) :]
        ended = words[-1] in ends
        assert answer.text == tokenizer.decode(words[: -1 if ended else None], skip_special_tokens=True)
        assert answer.ended == ended
        assert answer.tokens == len(words) - ended


def test_an_answer_that_stops_by_itself_is_told_from_one_that_was_cut(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    [cut] = generate(model, tokenizer, CPU, [PROMPTS[0]], 5)
    assert (cut.ended, cut.tokens) == (False, 5)
    with torch.no_grad():  # every next token is the end of a turn
        model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[stop_ids(tokenizer)[0]] = 1.0
    [ended] = generate(model, tokenizer, CPU, [PROMPTS[0]], 5)
    assert (ended.ended, ended.tokens, ended.text) == (True, 0, "")


def test_no_prompts_no_answers(small_model: Path) -> None:
    assert generate(load_model(small_model).model, load_tokenizer(small_model), CPU, [], 5) == []
