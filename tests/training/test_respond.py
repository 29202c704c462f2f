"""Answering as the worker starts it: what is answered, killed, gone on from, taken from other runs, and left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import Qwen2ForCausalLM

from tests.training.chat_server import Asked, Says, chat_server, says
from tests.training.small import WORDS, logs, make_model, make_run, records, train, write_chats
from training.answer_room import memory_for_answers, row_bytes
from training.config import parse_config
from training.data.encoding import chat_template
from training.device import Device
from training.errors import EndpointError, InputError, OutOfMemory
from training.loading import load_model
from training.rundir import ResolvedInput, RunDir, RunFile
from training.tokenizer import load_tokenizer, stop_ids

ROOT = Path(__file__).parents[2]
COUNT = 20


def write_prompts(path: Path, count: int = COUNT) -> Path:
    rows = [
        {"prompt_id": f"p{n}", "prompt": f"What is {'please ' * (n % 4)}{WORDS[n % 7]} plus {WORDS[n % 5]}, number {n}?",
         "category": "sums" if n % 2 else "more", "reference": WORDS[n % 7 + n % 5]}
        for n in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def respond_run(
    folder: Path, model: Path | str, prompts: Path, shared: Path | None = None, attempt: int = 1, **settings: Any
) -> tuple[RunDir, RunFile]:
    """A run directory with its config.json, as the worker writes it."""
    named = f"path:{model}" if isinstance(model, Path) else model
    content = {
        "stage": "respond", "model": named, "prompts": f"path:{prompts}", "max_new_tokens": 12, "precision": "fp32",
        "micro_batch_size": 4, **settings,
    }  # fmt: skip
    inputs = {}
    for _, text in parse_config(dict(content)).references():
        path = text.removeprefix("path:") if text.startswith("path:") else None
        inputs[text] = ResolvedInput(reference=text, path=path)
    run = RunFile(
        run_id=1, name="ask", experiment="tests", stage="respond", attempt=attempt, config=content, inputs=inputs,
        shared=None if shared is None else str(shared), prompt_set="prompts",
    )  # fmt: skip
    run_dir = RunDir(folder)
    run_dir.create()
    run_dir.write_config(run)
    return run_dir, run


def answers(run_dir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_dir.responses.read_bytes().splitlines()]


def measured(run_dir: RunDir) -> dict[str, float]:
    values: dict[str, float] = records(run_dir, "metrics")[-1].body["values"]
    return values


def start(run_dir: RunDir, **environment: str) -> int:
    """The stage as a process of its own. Returns its exit code."""
    told = {**os.environ, "PREFLAB_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "training", str(run_dir.root)], cwd=ROOT, env=told, check=False
    ).returncode


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl")


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_greedy_answers_are_transformers_own_prompt_by_prompt(tmp_path: Path, prompts: Path, kind: str) -> None:
    changes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256} if kind == "gpt2" else {}
    folder = make_model(tmp_path / "model", kind, **changes)
    run_dir, run = respond_run(tmp_path / "run", folder, prompts)
    assert not train(run_dir, run)
    model: Any = load_model(folder).model.eval()
    tokenizer = load_tokenizer(folder)
    found = answers(run_dir)
    assert [row["prompt_id"] for row in found] == [f"p{n}" for n in range(COUNT)]
    for row in found:
        text = chat_template(tokenizer).render(row["prompt"], add_generation_prompt=True)
        ids = torch.tensor([tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=stop_ids(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        ended = output[-1] in stop_ids(tokenizer)
        assert row["response"] == tokenizer.decode(output[:-1] if ended else output, skip_special_tokens=True)
        assert (row["ended"], row["tokens"]) == (ended, len(output) - ended)
    assert found[1]["category"] == "sums" and found[1]["reference"] == "two" and found[1]["model"] == "model"


@pytest.mark.long
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_run_that_is_killed_again_and_again_leaves_the_answers_of_one_that_never_was(
    tmp_path: Path, small_model: Path, prompts: Path, temperature: float
) -> None:
    run_dir, _ = respond_run(tmp_path / "undisturbed", small_model, prompts, temperature=temperature)
    assert start(run_dir) == 0
    killed, _ = respond_run(tmp_path / "killed", small_model, prompts, temperature=temperature)
    # Twice with a batch in flight, once right behind one. The plan is kept as a work, too, but is no answer.
    for place in ("before_answers_kept:2", "after_answers_kept:2", "before_answers_kept:1"):
        assert start(killed, PREFLAB_FAILPOINT=place) == 137
        assert not killed.responses.exists()
    assert start(killed) == 0
    assert killed.responses.read_bytes() == run_dir.responses.read_bytes()
    # Each batch of four was made once, but for the two that were in flight.
    begun = Counter(key for line in killed.work.read_bytes().splitlines() for key in json.loads(line).get("begun", ()))
    assert Counter(begun.values()) == {1: COUNT - 8, 2: 8}
    assert measured(killed)["repeated"] == 8 and measured(run_dir)["repeated"] == 0
    assert "4 answers were under way" in logs(killed)


def test_sampled_answers_differ_from_greedy_ones_and_between_seeds(
    tmp_path: Path, small_model: Path, prompts: Path
) -> None:
    texts = []
    wanted: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"temperature": 1.0, "seed": 1}]
    for index, settings in enumerate(wanted):
        run_dir, run = respond_run(tmp_path / str(index), small_model, prompts, **settings)
        train(run_dir, run)
        texts.append([row["response"] for row in answers(run_dir)])
    assert texts[0] != texts[1] != texts[2] != texts[0]


def test_a_second_run_with_the_same_model_generates_nothing_and_another_setting_does(
    tmp_path: Path, small_model: Path, prompts: Path
) -> None:
    shared = tmp_path / "shared"
    for index, cached in enumerate([0, COUNT]):
        run_dir, run = respond_run(tmp_path / str(index), small_model, prompts, shared)
        train(run_dir, run)
        assert measured(run_dir)["cached"] == cached
    assert (tmp_path / "0/outputs/responses.jsonl").read_bytes() == run_dir.responses.read_bytes()
    assert b"begun" not in run_dir.work.read_bytes()
    more, run = respond_run(tmp_path / "more", small_model, write_prompts(tmp_path / "more.jsonl", COUNT + 3), shared)
    train(more, run)
    assert measured(more)["cached"] == COUNT and len(answers(more)) == COUNT + 3
    anew, run = respond_run(tmp_path / "anew", small_model, prompts, shared, reuse=False)
    train(anew, run)
    assert measured(anew)["cached"] == 0 and anew.responses.read_bytes() == run_dir.responses.read_bytes()
    longer, run = respond_run(tmp_path / "longer", small_model, prompts, shared, max_new_tokens=13)
    train(longer, run)
    assert measured(longer)["cached"] == 0


def test_several_checkpoints_answer_one_after_the_other_and_are_told_apart(tmp_path: Path, prompts: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl")
    sft, run = make_run(tmp_path / "sft", make_model(tmp_path / "model"), data, max_steps=4, save_every=2)
    train(sft, run)
    run_dir, run = respond_run(tmp_path / "ask", "run:sft", prompts, checkpoints=["2", "best"])
    inputs = dict(run.inputs)
    for text, weights in {
        "run:sft?checkpoint=2": sft.checkpoints / "step-000002",
        "run:sft?checkpoint=best": None,
    }.items():
        inputs[text] = ResolvedInput(reference=text, path=str(sft.model), weights=weights and str(weights))
    run = run.model_copy(update={"inputs": inputs})
    train(run_dir, run)
    found = answers(run_dir)
    assert [row["model"] for row in found[:4]] == ["sft@2", "sft@best", "sft@2", "sft@best"]
    assert [row.get("checkpoint") for row in found[:2]] == [2, None]
    early, best = ([row["response"] for row in found if row["model"] == name] for name in ("sft@2", "sft@best"))
    assert early != best


def test_a_prompt_that_fills_the_context_has_an_empty_answer_and_is_named(tmp_path: Path, prompts: Path) -> None:
    model = make_model(tmp_path / "model", max_position_embeddings=96)
    rows = prompts.read_text() + json.dumps({"prompt_id": "huge", "prompt": "one " * 200}) + "\n"
    (tmp_path / "prompts.jsonl").write_text(rows)
    run_dir, run = respond_run(tmp_path / "run", model, tmp_path / "prompts.jsonl", max_new_tokens=64)
    train(run_dir, run)
    found = {row["prompt_id"]: row for row in answers(run_dir)}
    assert (found["huge"]["response"], found["huge"]["ended"], found["huge"]["tokens"]) == ("", False, 0)
    assert "1 prompt leaves no room for an answer in the 96 tokens that the model reads" in logs(run_dir)
    assert "(huge)" in logs(run_dir)
    assert all(row["tokens"] for key, row in found.items() if key != "huge")


def test_a_chat_template_that_refuses_a_prompt_leaves_its_answer_empty_and_all_refused_end_the_run(
    tmp_path: Path, prompts: Path
) -> None:
    model = make_model(tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    refuse = "{% if messages[0].content == 'Refuse.' %}{{ raise_exception('I will not') }}{% endif %}"
    (model / "chat_template.jinja").write_text(refuse + template)
    rude = json.dumps({"prompt_id": "rude", "prompt": "Refuse."}) + "\n"
    (tmp_path / "some.jsonl").write_text(prompts.read_text() + rude)
    (tmp_path / "all.jsonl").write_text(rude)
    run_dir, run = respond_run(tmp_path / "some", model, tmp_path / "some.jsonl")
    train(run_dir, run)
    found = {row["prompt_id"]: row for row in answers(run_dir)}
    assert len(found) == COUNT + 1 and found["rude"]["response"] == "" and not found["rude"]["ended"]
    assert "(rude): the model's chat template refuses it: I will not." in logs(run_dir)
    run_dir, run = respond_run(tmp_path / "all", model, tmp_path / "all.jsonl")
    with pytest.raises(InputError, match="I will not"):
        train(run_dir, run)


def test_where_memory_runs_out_fewer_answers_are_made_at_once_and_they_are_the_same(
    tmp_path: Path, small_model: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, run = respond_run(tmp_path / "a", small_model, prompts, micro_batch_size=16)
    train(undisturbed, run)
    usual = Qwen2ForCausalLM.forward
    asked: list[int] = []

    def small_device(self: Any, *given: Any, **named: Any) -> Any:
        rows = len(named["input_ids"])
        asked.append(rows)
        if rows > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(self, *given, **named)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", small_device)
    run_dir, run = respond_run(tmp_path / "b", small_model, prompts, micro_batch_size=16)
    train(run_dir, run)
    assert run_dir.responses.read_bytes() == undisturbed.responses.read_bytes()
    assert [rows for rows in asked if rows > 5] == [16, 8], "once it is known, it is not tried again"
    assert "Out of memory with 8 answers at once: 4 are made from now on." in logs(run_dir)
    assert measured(run_dir)["repeated"] == 0


def test_where_one_answer_is_too_much_for_the_memory_the_run_says_so(
    tmp_path: Path, small_model: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Qwen2ForCausalLM.forward

    def tiny_device(self: Any, *given: Any, **named: Any) -> Any:
        if named["input_ids"].shape[1] > 30:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(self, *given, **named)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", tiny_device)
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts)
    with pytest.raises(OutOfMemory, match="even for one answer"):
        train(run_dir, run)


def test_spaces_stay_as_they_were_written_and_nul_characters_which_no_table_takes_do_not(
    tmp_path: Path, small_model: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(small_model)
    [nul, newline] = (tokenizer.backend_tokenizer.encode(each, add_special_tokens=False).ids[0] for each in "\0\n")
    usual = Qwen2ForCausalLM.forward

    def after_words(self: Any, *given: Any, **named: Any) -> Any:
        output = usual(self, *given, **named)
        output.logits = torch.zeros_like(output.logits)
        output.logits[..., newline], output.logits[..., nul] = 2.0, 1.0
        output.logits[named["input_ids"][:, -1] == newline, -1, nul] = 3.0
        return output

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", after_words)
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts, max_new_tokens=5)
    train(run_dir, run)
    row = answers(run_dir)[0]
    assert row["response"] in {"\n" * 2, "\n" * 3} and row["tokens"] == 5  # every other token, whichever is first
    assert measured(run_dir)["answers_empty"] == 1.0


def test_progress_and_samples_tell_answers_alone(tmp_path: Path, small_model: Path, prompts: Path) -> None:
    shared = tmp_path / "shared"
    for index in range(2):
        run_dir, run = respond_run(tmp_path / str(index), small_model, prompts, shared)
        train(run_dir, run)
        last = records(run_dir, "progress")[-1].body
        assert (last["done"], last["total"], last["unit"]) == (COUNT, COUNT, "answers")
        samples = [record.body for record in records(run_dir, "sample")]
        found = {row["prompt"][-1]["content"]: row for row in answers(run_dir)}
        assert [body["index"] for body in samples] == [0, 1, 2]
        assert all(body["response"] == found[body["prompt"]]["response"] for body in samples)
        phases = [record.body["phase"] for record in records(run_dir, "status")]
        assert ("loading the model" in phases) == (index == 0), (
            "of a model that answered all before, no weights are read"
        )


def test_a_run_that_goes_on_knows_what_it_took_from_earlier_runs(
    tmp_path: Path, small_model: Path, prompts: Path
) -> None:
    shared, few = tmp_path / "shared", write_prompts(tmp_path / "few.jsonl", 7)
    run_dir, run = respond_run(tmp_path / "few", small_model, few, shared)
    train(run_dir, run)
    undisturbed, run = respond_run(tmp_path / "a", small_model, prompts, shared=None)
    train(undisturbed, run)
    run_dir, run = respond_run(tmp_path / "b", small_model, prompts, shared)
    assert train(run_dir, run, stop_after=3)
    for file in (shared / "answers").rglob("*.jsonl"):
        file.unlink()  # anybody may, at any time
    assert not train(run_dir, run)
    assert measured(run_dir)["cached"] == 7 and run_dir.responses.read_bytes() == undisturbed.responses.read_bytes()
    rows = [row for file in (shared / "answers").rglob("*.jsonl") for row in file.read_bytes().splitlines()]
    assert len(rows) == COUNT - 7, "what was known is not kept again"


def test_a_cache_that_cannot_be_written_costs_no_answer(tmp_path: Path, small_model: Path, prompts: Path) -> None:
    (tmp_path / "shared").write_text("no folder")
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts, tmp_path / "shared")
    train(run_dir, run)
    assert len(answers(run_dir)) == COUNT and "not kept for other runs" in logs(run_dir)


def test_a_run_that_goes_on_in_other_precision_says_so_and_leaves_nothing_to_other_runs(
    tmp_path: Path, small_model: Path, prompts: Path
) -> None:
    shared = tmp_path / "shared"
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts, shared)
    assert train(run_dir, run, stop_after=3)
    other = run.model_copy(update={"config": {**run.config, "precision": "bf16"}})
    assert not train(run_dir, other)
    assert len(answers(run_dir)) == COUNT and "in other precision" in logs(run_dir)
    assert not list(shared.rglob("*.jsonl"))


def test_prompts_that_changed_since_the_run_began_are_refused(tmp_path: Path, small_model: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts)
    assert train(run_dir, run, stop_after=3)
    prompts.write_text(prompts.read_text().replace("number 7?", "number 8?"))
    with pytest.raises(InputError, match=r"has changed \(prompts\)"):
        train(run_dir, run)


def test_a_small_memory_or_long_prompts_make_small_batches(small_model: Path) -> None:
    model: Any = load_model(small_model).model
    short, long = row_bytes(model, 10, 100), row_bytes(model, 100, 100)
    assert short < long < row_bytes(model, 100, 1000)
    # Two layers, two heads of 8 numbers for keys and values each, fp32, a quarter more room than tokens.
    assert row_bytes(model, 100, 1000) - long == 2 * 2 * 2 * 8 * 4 * 900 * 5 // 4
    assert 0 < memory_for_answers(Device(torch.device("cpu"), half=False), weights=0) < psutil.virtual_memory().total


def test_asked_to_stop_it_keeps_what_is_answered_and_goes_on_from_there(
    tmp_path: Path, small_model: Path, prompts: Path
) -> None:
    run_dir, run = respond_run(tmp_path / "run", small_model, prompts)
    assert train(run_dir, run, stop_after=3)
    assert not run_dir.responses.exists() and run_dir.work.read_bytes().count(b'"done"') == 3  # the plan, two batches
    assert not train(run_dir, run)
    assert len(answers(run_dir)) == COUNT and measured(run_dir)["repeated"] == 0


def test_a_model_that_changed_since_the_run_began_is_refused(tmp_path: Path, prompts: Path) -> None:
    model = make_model(tmp_path / "model")
    run_dir, run = respond_run(tmp_path / "run", model, prompts)
    assert train(run_dir, run, stop_after=3)
    make_model(model, seed=1)
    with pytest.raises(InputError, match="has changed"):
        train(run_dir, run)


@pytest.mark.long
def test_a_model_behind_an_endpoint_answers_and_only_what_was_in_flight_is_asked_again(
    tmp_path: Path, prompts: Path
) -> None:
    def answer(asked: Asked) -> str:
        return f"You said: {asked.last}"

    with chat_server(answer) as server:
        run_dir, run = respond_run(tmp_path / "run", "api:local/big", prompts, tmp_path / "shared", concurrency=2)
        inputs = dict(run.inputs) | {"api:local/big": ResolvedInput(reference="api:local/big", url=server.url)}
        run = run.model_copy(update={"inputs": inputs})
        run_dir.write_config(run)
        assert start(run_dir, PREFLAB_FAILPOINT="before_answers_kept:8") == 137
        assert start(run_dir) == 0
        asked = Counter(each.last for each in server.asked)
    found = answers(run_dir)
    assert [row["response"] for row in found] == [f"You said: {row['prompt'][-1]['content']}" for row in found]
    assert len(asked) == COUNT and sum(asked.values()) - COUNT == measured(run_dir)["repeated"] <= 2
    assert server.asked[0].body["max_tokens"] == 12 and server.asked[0].body["model"] == "big"


def test_an_endpoint_that_refuses_ends_the_run_and_keeps_what_was_answered(tmp_path: Path, prompts: Path) -> None:
    def answer(asked: Asked) -> str | Says:
        return says({"error": {"message": "too rude"}}, 400) if "number 5?" in asked.last else "Yes."

    with chat_server(answer) as server:
        run_dir, run = respond_run(tmp_path / "run", "api:local/big", prompts, concurrency=1)
        inputs = dict(run.inputs) | {"api:local/big": ResolvedInput(reference="api:local/big", url=server.url)}
        with pytest.raises(EndpointError, match="too rude"):
            train(run_dir, run.model_copy(update={"inputs": inputs}))
    assert run_dir.work.read_bytes().count(b"Yes.") == 5
