"""Which judge a run's settings mean, ready to judge."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from training.batches import MicroBatch
from training.config import JudgingConfig
from training.device import Device, choose_device, fitting_micro_batch
from training.errors import InputError, ModelError
from training.finding import find_endpoint, find_folder
from training.journal import Journal
from training.judging.answers import Answers
from training.judging.checker import Checker
from training.judging.conversations import conversations, most_tokens
from training.judging.instructions import Instructions, own_instructions, read_instructions
from training.judging.judge import Judge
from training.judging.models import ModelJudge, classifier_scores, nemotron_scores
from training.judging.nemotron import RewardEndpoint
from training.judging.pairwise import PairwiseJudge
from training.loading import Loaded, check_vocabulary, load_pretrained, take_weights
from training.model_files import CAUSAL, SCORING, inspect_model
from training.preparation import model_identity
from training.references import parse_reference
from training.rundir import ResolvedInput, RunDir, RunFile
from training.tokenizer import load_tokenizer

NEMOTRON_TOKENS = 4096  # that it reads, as its card says


def open_judge(
    config: JudgingConfig, run: RunFile, run_dir: RunDir, answers: Answers, twice: Collection[str], journal: Journal,
    baseline: str = "",
) -> Judge:  # fmt: skip
    """The judge, its model loaded or its endpoint known. Raises TrainingError.

    `twice`: prompts that it judges again. `baseline`: whom a judge of pairs compares the others with; empty: each with
    each.
    """
    if config.way == "checker":
        return Checker(answers, config.check, config.judge_name)
    if config.way == "pairwise":
        instructions = _instructions(config, run)
        endpoint, _ = find_endpoint(config.judge, "judge", run, config, journal)
        return PairwiseJudge(answers, endpoint, instructions, baseline, twice, config.judge_name)
    if parse_reference(config.judge).kind == "api":
        endpoint, _ = find_endpoint(config.judge, "judge", run, config, journal)
        return RewardEndpoint(answers, endpoint, twice, config.judge_name)
    return _model_judge(config, run, run_dir, answers, twice, journal)


def _instructions(config: JudgingConfig, run: RunFile) -> Instructions:
    if config.instructions is None:
        return own_instructions()
    found = run.inputs.get(config.instructions)
    if found is None or found.path is None:
        raise InputError(f"{config.instructions} was not found.", "Check the path.", field="instructions")
    return read_instructions(Path(found.path))


# -- models that run here ------------------------------------------------------------------------------------------


def _model_judge(
    config: JudgingConfig, run: RunFile, run_dir: RunDir, answers: Answers, twice: Collection[str], journal: Journal
) -> ModelJudge:
    classifies = config.way == "reward"
    ends = SCORING if classifies else CAUSAL
    folder = find_folder(config.judge, "judge", run, run_dir, journal, ends)
    facts = inspect_model(folder, ends=ends)
    if not facts.has_chat_template:
        journal.log(
            "The judge has no chat template of its own: ChatML is used, which it may not have learnt.", "warning"
        )
    journal.status("loading the judge")
    tokenizer = load_tokenizer(folder)
    device = choose_device(config.precision, facts.parameters)
    model = _load(folder, run.inputs.get(config.judge), classifies, device)
    check_vocabulary(model, tokenizer)
    journal.log(f"The judge has {facts.parameters:,} parameters, on {device.describe()}.")

    journal.status("tokenizing")
    most = (
        most_tokens(model.config, tokenizer)
        if classifies
        else min(NEMOTRON_TOKENS, most_tokens(model.config, tokenizer))
    )
    made = conversations(answers, tokenizer, most, bare_end=classifies and _is_ours(config, folder))
    score = classifier_scores(model, device) if classifies else nemotron_scores(model, tokenizer.pad_token_id, device)
    limit = _limit(config, model, facts.parameters, device)
    identity = {"model": _identity(config, folder, run)}
    return ModelJudge(answers, twice, config.judge_name, made, score, limit, identity, journal, config.seed)


def _load(folder: Path, found: ResolvedInput | None, classifies: bool, device: Device) -> Any:
    """In the precision of the computation: nothing is learnt here, so no more is needed. Raises ModelError."""
    half = torch.bfloat16 if device.half else torch.float32
    other = found is not None and found.weights is not None  # a checkpoint's weights are fp32
    kind, what = (
        (AutoModelForSequenceClassification, "a sequence classifier with one label")
        if classifies
        else (AutoModelForCausalLM, "a causal language model")
    )
    model = load_pretrained(kind, folder, torch.float32 if other else half, what, field="judge")
    if classifies and model.config.num_labels != 1:
        raise ModelError(
            f"The model in {folder} gives {model.config.num_labels} scores; a judge gives one.",
            "Take a reward model: a sequence classifier with one label.",
            field="judge",
        )
    take_weights(Loaded(model, half), found)
    return model.to(device=device.torch, dtype=half).eval()


def _is_ours(config: JudgingConfig, folder: Path) -> bool:
    """Whether Preflab trained it: then a score stands at the end of the answer's turn, not behind it."""
    card = folder / "README.md"
    said = card.is_file() and "tags: [preflab, reward]" in card.read_text("utf-8", "replace")
    return said or parse_reference(config.judge).kind == "run"


def _limit(config: JudgingConfig, model: Any, parameters: int, device: Device) -> MicroBatch:
    if config.micro_batch_size is not None:
        return MicroBatch(examples=config.micro_batch_size)
    shape = model.config.get_text_config()
    wide = getattr(shape, "intermediate_size", None) or 4 * shape.hidden_size
    layers, hidden = shape.num_hidden_layers, shape.hidden_size
    return fitting_micro_batch(device, layers, hidden, wide, parameters, trained=0, checkpointing=True)


def _identity(config: JudgingConfig, folder: Path, run: RunFile) -> str:
    """Which model it is: of the Hub, the commit; else the hash of its files."""
    if parse_reference(config.judge).kind == "hf":
        return f"{config.judge} {folder.name}"
    return model_identity(folder, run.inputs.get(config.judge))
