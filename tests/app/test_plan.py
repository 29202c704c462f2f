"""What the panel beside the form says; numbers by hand."""

from __future__ import annotations

from dataclasses import replace

from app.runs.advice import warnings
from app.runs.plan import RUNTIME, DataFacts, Machine, ModelSize, counts, disk, memory, plan
from app.units import duration, in_bytes, metric, short
from training.config import DpoConfig, RewardConfig, SftConfig

DATA = DataFacts(rows=1000, characters=1000 * 400)
MODEL = ModelSize(parameters=1_000_000, hidden=100, layers=2, intermediate=300, vocab=1000, max_positions=512)
MACHINE = Machine("cpu", memory=8 << 30, speed=1000.0, free_disk=1 << 40)


def config(**content: object) -> SftConfig:
    return SftConfig.model_validate({"model": "new:tiny", "dataset": "data:x", **content})


def test_epochs_make_steps() -> None:
    found = counts(config(eval_fraction=0.1, batch_size=32, epochs=2), DATA)
    assert (found.examples, found.held_back) == (900, 100)
    assert (found.steps, found.seen) == (57, 1800)  # ceil(1800 / 32)
    assert found.tokens == 1800 * 100  # 400 characters at four a token


def test_a_small_part_of_an_epoch_is_one_example() -> None:
    found = counts(config(eval_fraction=0, epochs=0.01), DataFacts(rows=20, characters=20 * 400))
    assert (found.steps, found.seen, found.tokens) == (1, 1, 100)


def test_steps_make_passes_and_a_long_example_counts_only_what_is_kept() -> None:
    found = counts(config(eval_fraction=0, max_steps=10, batch_size=50, max_length=64), DATA)
    assert (found.steps, found.seen, found.tokens) == (10, 500, 500 * 64)


def test_memory_is_sixteen_bytes_a_trained_parameter_and_one_example() -> None:
    token = 2 * (14 * 100 + 5 * 300) * 4 + 8 * 1000
    assert memory(config(max_length=100), MODEL) == 16_000_000 + 100 * token
    assert memory(config(max_length=100, micro_batch_size=3), MODEL) == 16_000_000 + 300 * token


def test_a_small_chat_file_on_a_cpu_is_planned_as_it_was_measured() -> None:
    """300 sums as chats of 3,386 characters; measured: 10 steps, 7,857 tokens, 484 MB (new:tiny, torch 2.13)."""
    facts = DataFacts(rows=300, characters=3_386, turns=600)
    found = counts(config(eval_fraction=0.03), facts)
    assert found.steps == 10
    assert found.tokens is not None and 0.7 < found.tokens / 7_857 < 1.3
    tiny = ModelSize(parameters=698_000, hidden=128, layers=3, intermediate=320, vocab=1024, fresh=True)
    need = memory(config(), tiny, RUNTIME)
    assert need is not None and 0.5 < need / 484_200_448 < 2


def test_lora_trains_and_saves_little() -> None:
    lora = 2 * 4 * (8 * 100 + 3 * 400)
    assert disk(config(lora_rank=4, keep_checkpoints=1), MODEL) == 2 * 12 * lora + 2 * 4 * lora + 4_000_000
    assert disk(config(keep_checkpoints=2), MODEL) == 36_000_000 + 12_000_000 + 4_000_000


def test_what_is_unknown_says_why() -> None:
    lines = {line.label: line for line in plan(config(), DataFacts(), ModelSize(), Machine())}
    assert all(not lines[label].value and lines[label].note for label in ("steps", "tokens", "memory", "time", "disk"))
    assert "timed" in {line.label: line for line in plan(config(), DATA, MODEL, Machine())}["time"].note


def test_time_comes_from_a_measured_speed() -> None:
    lines = {line.label: line for line in plan(config(eval_fraction=0), DATA, MODEL, MACHINE)}
    assert lines["time"].value == "about 1 min 40 s"  # 100,000 tokens at 1,000 a second


def test_an_ordinary_run_draws_no_warning() -> None:
    assert warnings(config(save_every=20, eval_every=10), DATA, MODEL, MACHINE) == {}


def test_each_warning_stands_at_its_field() -> None:
    def said(**content: object) -> set[str]:
        return set(warnings(config(**{"save_every": 1, "eval_every": 1, **content}), DATA, MODEL, MACHINE))

    assert said(learning_rate=1e-3) == {"learning_rate"}
    assert said(learning_rate=1e-3, lora_rank=8) == set()
    assert said(eval_fraction=0) == {"eval_fraction"}
    assert said(max_steps=50, warmup_steps=50) == {"warmup_steps"}
    assert said(batch_size=2000) == {"batch_size"}
    assert said(micro_batch_size=64) == {"micro_batch_size"}
    assert said(save_every=5000) == {"save_every"}
    assert said(eval_every=5000) == {"eval_every"}
    assert said(early_stopping_patience=100) == {"early_stopping_patience"}


def test_a_device_or_a_disk_too_small_is_a_warning() -> None:
    small = Machine("cpu", memory=1 << 20, free_disk=1 << 20)
    assert set(warnings(config(save_every=1, eval_every=1), DATA, MODEL, small)) == {"model", "keep_checkpoints"}


def test_numbers_in_words() -> None:
    assert [short(n) for n in (12, 1234, 34_000_000, 123_456)] == ["12", "1.2 K", "34 M", "123 K"]
    assert [in_bytes(n) for n in (100, 2048, 5 << 30, 80 << 30)] == ["100 B", "2.0 KiB", "5.0 GiB", "80 GiB"]
    assert [duration(n) for n in (5, 65, 1200, 4000, 200_000)] == ["5 s", "1 min 5 s", "20 min", "1 h 6 min", "2 d 7 h"]
    assert [metric(n) for n in (None, 2.5, 12345.6, 0.00012)] == ["–", "2.5000", "12,346", "0.00012"]


def test_an_earlier_run_of_the_same_data_says_how_long_its_examples_are() -> None:
    found = counts(config(eval_fraction=0, max_steps=10, batch_size=10), DataFacts(rows=1000, measured=37.5))
    assert found.tokens == 3750


def dpo(**content: object) -> DpoConfig:
    given = {"model": "run:sft", "dataset": "data:x", "save_every": 1, "eval_every": 1, **content}
    return DpoConfig.model_validate(given)


def reward(**content: object) -> RewardConfig:
    return RewardConfig.model_validate({"model": "run:sft", "dataset": "data:x", **content})


def test_a_pair_has_both_its_answers_and_is_as_long_as_two_examples_at_most() -> None:
    found = counts(dpo(eval_fraction=0.1, batch_size=30), DATA)
    assert (found.examples, found.held_back, found.steps, found.tokens) == (900, 100, 30, 90_000)
    assert counts(dpo(eval_fraction=0, max_length=40), DATA).tokens == 1000 * 80
    lines = {line.label: line for line in plan(dpo(eval_fraction=0.1, batch_size=30), DATA, MODEL, MACHINE)}
    assert lines["pairs"].value == "900" and lines["steps"].note == "of 30 pairs"
    assert lines["tokens"].note.startswith("100 a pair")


def test_the_reference_reads_every_pair_once_also_those_held_back() -> None:
    lines = {line.label: line for line in plan(dpo(eval_fraction=0.1, epochs=3), DATA, MODEL, MACHINE)}
    assert lines["reference"].value == "reads about 100 K tokens"
    assert "kept for later runs" in lines["reference"].note
    assert lines["time"].value == "about 5 min 3 s"  # 270,000 tokens at 1,000 a second, and 100,000 at 3,000
    assert "reference" not in {line.label for line in plan(reward(), DATA, MODEL, MACHINE)}


def test_a_pair_takes_the_activations_of_both_answers_and_a_reward_model_has_no_logits() -> None:
    layers, logits = 2 * (14 * 100 + 5 * 300) * 4, 8 * 1000
    assert memory(dpo(max_length=100), MODEL) == 16_000_000 + 200 * (layers + logits)
    assert memory(reward(max_length=100, micro_batch_size=3), MODEL) == 16_000_000 + 600 * layers


def test_the_reference_takes_memory_only_while_samples_are_taken() -> None:
    assert memory(dpo(max_length=8), MODEL) == 16_000_000 + 4_000_000
    assert memory(dpo(max_length=8, sample_count=0), MODEL) == 16_000_000 + 16 * (2 * 2900 * 4 + 8000)
    note = {line.label: line for line in plan(dpo(), DATA, MODEL, MACHINE)}["memory"].note
    assert note == "of 8.0 GiB on cpu; the reference, 3.8 MiB, comes in for samples alone"


def test_each_warning_of_dpo_stands_at_its_field() -> None:
    def said(model: ModelSize = MODEL, **content: object) -> dict[str, str]:
        return warnings(dpo(**content), DATA, model, MACHINE)

    assert said() == {}
    assert said(learning_rate=5e-5) == said(learning_rate=5e-4, lora_rank=8) == {}
    assert said(learning_rate=6e-5) == {"learning_rate": "Unusually high for DPO; 5e-06 to 5e-05 is common."}
    assert list(said(learning_rate=6e-4, lora_rank=8)) == ["learning_rate"]
    fresh = replace(MODEL, fresh=True, can_chat=False)
    assert list(said(fresh, learning_rate=5e-3)) == ["model"] and "fresh model" in said(fresh)["model"]
    assert "learning_rate" in said(fresh, learning_rate=2e-2)
    assert "small" in said(beta=0.0009)["beta"] and "large" in said(beta=1.1)["beta"]
    assert said(beta=0.001) == said(beta=1) == {}
    assert said(loss="sigmoid_norm", beta=0.5) == said(loss="sigmoid_norm", beta=20) == {}
    assert said(loss="sigmoid_norm", beta=0.1) == {
        "beta": "So small that nothing holds the model near the reference; with log-ratios per token, 2 to 10 is common."
    }
    assert "large" in said(loss="sigmoid_norm", beta=21)["beta"]
    assert said(max_steps=50, beta_warmup_steps=50) == {
        "beta_warmup_steps": "The run has 50 steps: beta never reaches its full value."
    }
    assert said(max_steps=50, beta_warmup_steps=49) == {}


def test_the_papers_settings_of_dpo_draw_no_warning() -> None:
    paper = dpo(beta=0.015, margin_clamp=20, beta_warmup_steps=100, learning_rate=5e-6, max_steps=1000)
    assert warnings(paper, DATA, MODEL, MACHINE) == {}


def test_a_clamp_that_leaves_nothing_to_learn_is_a_warning_with_the_least_loss() -> None:
    low = warnings(dpo(beta=0.015, margin_clamp=2), DATA, MODEL, MACHINE)
    # -log sigmoid(0.03) = log(1 + e^-0.03) = 0.678
    assert (
        low["margin_clamp"] == "Times beta it is 0.03: the loss of a pair can fall from 0.693 to 0.678 and no further."
    )
    smooth = warnings(dpo(beta=0.015, margin_clamp=2, label_smoothing=0.4), DATA, MODEL, MACHINE)
    assert "to 0.690 and" in smooth["margin_clamp"]  # 0.6 x 0.6783 + 0.4 x 0.7083
    ipo = warnings(dpo(loss="ipo", beta=0.05, margin_clamp=9), DATA, MODEL, MACHINE)
    assert ipo["margin_clamp"] == "IPO aims at a margin of 1 / (2 beta) = 10, which lies beyond the clamp."
    assert warnings(dpo(loss="ipo", beta=0.05, margin_clamp=11), DATA, MODEL, MACHINE) == {}


def test_a_base_model_is_a_warning_to_dpo_alone() -> None:
    base = replace(MODEL, can_chat=False)
    assert "start from an SFT run" in warnings(dpo(), DATA, base, MACHINE)["model"]
    assert warnings(dpo(), DATA, replace(MODEL, can_chat=True), MACHINE) == {}
    assert warnings(config(save_every=20, eval_every=10), DATA, base, MACHINE) == {}


def test_a_reward_model_is_warned_of_what_sft_is() -> None:
    small = {"save_every": 1, "eval_every": 1}
    assert warnings(reward(**small), DATA, MODEL, MACHINE) == {}
    assert list(warnings(reward(**small, learning_rate=1e-3), DATA, MODEL, MACHINE)) == ["learning_rate"]
    assert warnings(reward(**small, batch_size=5000), DATA, MODEL, MACHINE) == {
        "batch_size": "There are only 970 pairs: every step sees some of them twice."
    }
