"""What the panel beside the form says; numbers by hand."""

from __future__ import annotations

from app.runs.plan import RUNTIME, DataFacts, Machine, ModelSize, counts, disk, memory, plan, warnings
from app.units import duration, in_bytes, metric, short
from training.config import SftConfig

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
