from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TopPLogitsWarper

from tests.training.small import make_model
from training.attention import PACKED
from training.decoding import STEPS_BETWEEN_LOOKS, decode
from training.device import Device
from training.errors import ModelError, Stopped
from training.forward import prepare_forward
from training.generate import Way, find_way, generate, set_ends
from training.loading import load_model
from training.sampling import GREEDY, Chooser, Sampling, draw
from training.tokenizer import load_tokenizer, stop_ids

CPU = Device(torch.device("cpu"), half=False)
NO_END = -1  # a token that no model writes
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


def test_a_nul_that_a_model_writes_is_left_out_of_its_answer(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    [nul] = tokenizer.encode("\0", add_special_tokens=False)
    assert tokenizer.decode([nul]) == "\0"
    with torch.no_grad():  # every next token is NUL
        model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[nul] = 1.0
    [answer] = generate(model, tokenizer, CPU, [PROMPTS[0]], 5)
    assert (answer.text, answer.tokens, answer.ids) == ("", 5, [nul] * 5)


def test_no_prompts_no_answers(small_model: Path) -> None:
    assert generate(load_model(small_model).model, load_tokenizer(small_model), CPU, [], 5) == []


# -- our own loop --------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {}, "llama": {}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, "bloom": {"n_head": 4},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "num_hidden_layers": 6, "head_dim": 8},
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
}  # fmt: skip
"""Rotary, learnt and no positions; all layers with a window, some with one, and some without attention."""
LONG = 24  # tokens of an answer: more than the windows hold
LIMITS = [LONG, 3, 17, 1, LONG]


def asked(model: Any) -> list[list[int]]:
    """Prompts whose lengths differ, so that there is padding."""
    draw = torch.Generator().manual_seed(0)
    words = model.get_input_embeddings().num_embeddings
    return [torch.randint(3, words, (length,), generator=draw).tolist() for length in (5, 23, 1, 12, 9)]


def transformers_own(model: Any, prompt: list[int], most: int, end: int) -> list[int]:
    """What transformers writes behind one prompt, with nothing beside it."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, eos_token_id=end, pad_token_id=0
    )
    written: list[int] = output[0, len(prompt) :].tolist()
    return written


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_leave_a_batch_leave_the_others_as_transformers_answers_them_one_by_one(
    tmp_path: Path, kind: str
) -> None:
    model: Any = load_model(make_model(tmp_path / kind, kind, **KINDS[kind])).model.eval()
    assert find_way(model, CPU) == "ours"
    prompts = asked(model)
    free = [transformers_own(model, prompt, LONG, NO_END) for prompt in prompts]
    end = free[0][LONG // 2]  # so that one of the answers ends by itself
    wanted = [transformers_own(model, prompt, most, end) for prompt, most in zip(prompts, LIMITS, strict=True)]
    assert len({len(answer) for answer in wanted}) >= 4, "rows leave at different times"
    choose = Chooser(GREEDY, prompts, LONG, CPU.torch)
    assert decode(model, CPU, prompts, LIMITS, {end}, 0, choose) == wanted


@pytest.mark.parametrize("steps", [3, 8, 100])
def test_ends_that_are_looked_for_now_and_then_cut_the_answers_at_the_same_place(
    small_model: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = load_model(small_model).model.eval()
    prompts = asked(model)
    end = transformers_own(model, prompts[0], LONG, NO_END)[10]
    wanted = [transformers_own(model, prompt, most, end) for prompt, most in zip(prompts, LIMITS, strict=True)]
    monkeypatch.setitem(STEPS_BETWEEN_LOOKS, "cpu", steps)
    assert decode(model, CPU, prompts, LIMITS, {end}, 0, Chooser(GREEDY, prompts, LONG, CPU.torch)) == wanted


def test_nothing_is_computed_for_rows_that_have_ended(small_model: Path) -> None:
    model: Any = load_model(small_model).model.eval()
    rows: list[int] = []
    model.register_forward_pre_hook(lambda module, given, named: rows.append(len(named["input_ids"])), with_kwargs=True)
    prompts = asked(model)
    decode(model, CPU, prompts, [4, 1, 2, 4, 1], {NO_END}, 0, Chooser(GREEDY, prompts, 4, CPU.torch))
    assert rows == [5, 3, 2, 2]


def test_a_model_that_keeps_no_keys_and_values_answers_through_transformers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mamba", "mamba", state_size=4)
    model, tokenizer = load_model(folder).model, load_tokenizer(folder)
    set_ends(model, tokenizer)
    way = find_way(model.eval(), CPU)
    assert way in {"transformers", "alone"}
    prompts = asked(model)
    answers = generate(model, tokenizer, CPU, prompts, LIMITS, way=way)
    for prompt, most, answer in zip(prompts, LIMITS, answers, strict=True):
        assert answer.ids == generate(model, tokenizer, CPU, [prompt], most)[0].ids
        assert answer.tokens <= most


def test_a_model_that_looks_at_padding_is_found_out_and_asked_one_by_one(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    usual = model.forward

    def blind_to_masks(*given: Any, attention_mask: Any = None, **named: Any) -> Any:
        return usual(*given, **named)

    model.forward = blind_to_masks
    assert find_way(model.eval(), CPU) == "alone"
    prompts = asked(model)
    answers = generate(model, tokenizer, CPU, prompts, LIMITS, way="alone")
    assert [each.ids for each in answers] == [
        generate(model, tokenizer, CPU, [prompt], most)[0].ids for prompt, most in zip(prompts, LIMITS, strict=True)
    ]


def test_a_wish_to_stop_is_heard_between_two_tokens_in_either_way(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    ways: list[Way] = ["ours", "transformers"]
    for way in ways:
        heard: list[int] = []

        def pause(ended: int, heard: list[int] = heard) -> None:
            heard.append(ended)
            if len(heard) == 5:
                raise Stopped

        with pytest.raises(Stopped):
            generate(model, tokenizer, CPU, PROMPTS, [2, 50, 50], way=way, pause=pause)
        assert heard == ([0, 0, 1, 1, 1] if way == "ours" else [0] * 5)


@pytest.mark.parametrize("way", ["ours", "transformers"])
def test_a_model_that_gives_no_numbers_is_said_to(small_model: Path, way: Any) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="no numbers"):
        generate(model, tokenizer, CPU, PROMPTS, 5, way=way)


def test_generation_ends_where_the_models_own_settings_say_too(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    [free] = generate(model, tokenizer, CPU, [PROMPTS[0]], 12)
    own = free.ids[4]
    model.generation_config.eos_token_id = [own]
    set_ends(model, tokenizer)
    assert model.generation_config.eos_token_id == [*stop_ids(tokenizer), own]
    [answer] = generate(model, tokenizer, CPU, [PROMPTS[0]], 12, way="ours")
    assert answer.ended and answer.ids == free.ids[: free.ids.index(own) + 1] and answer.tokens == len(answer.ids) - 1


# -- sampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6), (2.0, 0.9)])
def test_tokens_are_drawn_as_often_as_transformers_own_settings_say(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[0.3, 2.0, -1.0, 1.1, 0.9, -30.0, 1.5]])
    settings = TopPLogitsWarper(top_p)(None, logits / temperature) if top_p < 1 else logits / temperature
    wanted = torch.softmax(settings, -1)[0]
    count = 40_000
    drawn = draw(logits.expand(count, -1), temperature, top_p, (torch.arange(count) + 0.5) / count)
    assert torch.allclose(torch.bincount(drawn, minlength=7) / count, wanted, atol=2 / count + 1e-6)


def test_a_draw_from_many_words_is_the_one_from_all_of_them_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(64, 500, generator=torch.Generator().manual_seed(0)) * 2
    numbers = torch.rand(64, generator=torch.Generator().manual_seed(1))
    every = draw(logits, 1.0, 0.9, numbers)
    for few in (3, 100):  # too few for top_p, and enough
        monkeypatch.setattr("training.sampling.FEW", few)
        assert torch.equal(draw(logits, 1.0, 0.9, numbers), every)


@pytest.mark.parametrize("number", [0.0, 0.99999994])
def test_numbers_at_the_ends_draw_words_that_can_be_said(number: float) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, 0.0, -torch.inf]])
    for top_p in (1.0, 0.9, 0.1):
        assert int(draw(logits, 1.0, top_p, torch.tensor([number]))) in {1, 2}


def test_what_is_drawn_for_a_prompt_is_the_same_whatever_stands_beside_it_and_in_either_way(small_model: Path) -> None:
    model, tokenizer = load_model(small_model).model, load_tokenizer(small_model)
    set_ends(model, tokenizer)
    prompts, sampling = asked(model), Sampling(temperature=1.5, top_p=0.95, seed=3)
    together = generate(model, tokenizer, CPU, prompts, LIMITS, sampling, "ours")
    for prompt, most, answer in zip(prompts, LIMITS, together, strict=True):
        assert generate(model, tokenizer, CPU, [prompt], most, sampling, "ours") == [answer]
    assert generate(model, tokenizer, CPU, prompts, LIMITS, sampling, "transformers") == together
    other = generate(model, tokenizer, CPU, prompts, LIMITS, Sampling(1.5, 0.95, seed=4), "ours")
    assert [each.ids for each in other] != [each.ids for each in together]
    assert together[0].ids != generate(model, tokenizer, CPU, prompts[:1], LONG, way="ours")[0].ids
