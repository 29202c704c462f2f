"""From a config's references to tokens: what happens before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from training.commits import Commits
from training.config import DpoConfig, RewardConfig, SamplingConfig, SftConfig, TrainingConfig
from training.data.encoding import TokenSet, encode_examples
from training.data.examples import Example, Pair
from training.data.held_out import HeldOutSet, held_out_set
from training.data.pairs import PairSet, encode_pairs
from training.data.sources import Part, joined, load_examples, load_pairs
from training.data.splits import prompt_of, split
from training.errors import DataError, InputError
from training.files import disk_errors, sha256_of
from training.hub import fetch_model
from training.journal import Journal
from training.model_files import Shape, check_same_tokenizer, find_shape, inspect_model, weight_files
from training.prepared import PreparedData, T, cache_key, from_cache, to_cache
from training.prompts import sample_prompts, unanswered
from training.references import parse_reference
from training.rundir import ResolvedInput, RunDir, RunFile
from training.throttle import Throttle
from training.tokenizer import load_tokenizer, train_tokenizer
from training.words import were

Prepared = PreparedData[TokenSet]
PreparedPairs = PreparedData[PairSet]
R = TypeVar("R", Example, Pair)


def find_model(config: TrainingConfig, run: RunFile, run_dir: RunDir, journal: Journal) -> Path | Shape:
    """The model's folder, fetched if need be, or the shape of a new one; checked to fit the config."""
    reference = parse_reference(config.model)
    if reference.kind == "new":
        return find_shape(reference.name, config.max_length)
    return _model_folder("model", config.model, config.max_length, run, run_dir, journal)


def find_reference(
    config: DpoConfig, run: RunFile, source: Path | Shape, run_dir: RunDir, journal: Journal
) -> Path | None:
    """The folder of a reference model that is not the model itself, or None. `source`: as `find_model` gives it.

    Raises InputError, and ModelError where its tokenizer gives other ids than the model's.
    """
    text = config.reference_model
    if text is None or text == config.model:
        return None
    if text.startswith("new:"):
        raise InputError(
            f"{text} would be a model of other random weights than the one that is trained.",
            "Leave “Reference model” empty: then it is the model as it begins.",
            field="reference_model",
        )
    if isinstance(source, Shape):
        raise InputError(
            "A fresh model gets a tokenizer of its own, so no other model can be its reference.",
            "Leave “Reference model” empty: then it is the model as it begins.",
            field="reference_model",
        )
    folder = _model_folder("reference_model", text, config.max_length, run, run_dir, journal)
    check_same_tokenizer(source, folder)
    return folder


def _model_folder(field: str, text: str, max_length: int, run: RunFile, run_dir: RunDir, journal: Journal) -> Path:
    reference = parse_reference(text)
    if reference.kind == "hf":
        folder = fetch_model(reference, journal, Commits(run_dir.commits))
    else:
        found = run.inputs.get(text)
        if found is None or found.path is None:
            raise InputError(f"{text} was not found.", "Check the name, or choose another model.", field=field)
        folder = Path(found.path)
    inspect_model(folder, max_length)
    return folder


def model_identity(source: Path | Shape, found: ResolvedInput | None) -> str:
    """SHA-256 of the model that a run begins with: its config, its weights, and the checkpoint in their place, if any.

    The files' content counts, not their dates: a model that was copied back is the same one.
    """
    if isinstance(source, Shape):
        facts: dict[str, Any] = source.config()
    else:
        files = [source / "config.json", *weight_files(source)]
        if found is not None and found.weights is not None:
            files.append(Path(found.weights) / "manifest.json")  # which holds the hashes of the rest
        facts = {file.name: sha256_of(file) for file in files}
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def prepare(config: SftConfig, run: RunFile, source: Path | Shape, run_dir: RunDir, journal: Journal) -> Prepared:
    """Read the run's examples but for held-out prompts, split and tokenize them, or take what an earlier attempt made of them."""
    held_out = held_out_set(run, run_dir, journal)
    prepared = _once(
        TokenSet, config, run, run_dir, held_out,
        lambda: _prepare_examples(config, run, source, held_out, run_dir, journal),
    )  # fmt: skip
    train, held_back = prepared.train, prepared.held_back
    _report(prepared, "example", config.max_length, journal)
    empty = train.empty + held_back.empty
    if empty:
        journal.log(f"{were(empty, 'example')} left out: nothing there was to be learnt.", "warning")
    return prepared


def prepare_pairs(
    config: DpoConfig | RewardConfig, run: RunFile, source: Path | Shape, run_dir: RunDir, journal: Journal
) -> PreparedPairs:
    """Read the run's pairs but for held-out prompts, split and tokenize them, or take what an earlier attempt made of them."""
    held_out = held_out_set(run, run_dir, journal)
    prepared = _once(
        PairSet, config, run, run_dir, held_out,
        lambda: _prepare_pairs(config, run, source, held_out, run_dir, journal),
    )  # fmt: skip
    _report(prepared, "pair", config.max_length, journal)
    too_long = prepared.train.too_long + prepared.held_back.too_long
    if too_long:
        journal.log(
            f"{were(too_long, 'pair')} left out: the prompt leaves no room for an answer in {config.max_length:,} tokens.",
            "warning",
        )
    return prepared


def _once(
    form: type[T],
    config: TrainingConfig,
    run: RunFile,
    run_dir: RunDir,
    held_out: HeldOutSet | None,
    make: Callable[[], PreparedData[T]],
) -> PreparedData[T]:
    """What an earlier attempt made and kept, else what is made now, and kept. Raises DataError where it is nothing."""
    key = cache_key(config, run, held_out.sha256 if held_out else None)
    prepared = from_cache(form, run_dir, key)
    if prepared is None:
        prepared = make()
        with disk_errors("the tokens"):
            to_cache(prepared, run_dir, key)
    if not len(prepared.train):
        raise DataError(
            f"Nothing of the data is to be learnt within {config.max_length:,} tokens.",
            "Raise “Longest example”, or check that there are answers of the assistant's.",
            field="dataset",
        )
    return prepared


def _prepare_examples(
    config: SftConfig,
    run: RunFile,
    source: Path | Shape,
    held_out: HeldOutSet | None,
    run_dir: RunDir,
    journal: Journal,
) -> Prepared:
    journal.status("reading data")
    parts = load_examples(config.dataset, run.inputs, journal, Commits(run_dir.commits))
    examples = joined(_guarded(parts, run, held_out, run_dir, journal))
    train, held_back = _split(examples, config)
    tokenizer = _tokenizer(source, examples, journal)
    journal.status("tokenizing")
    progress = _progress(journal, "examples")

    def encode(which: Sequence[int]) -> TokenSet:
        chosen = [examples[index] for index in which]
        return encode_examples(chosen, tokenizer, config.max_length, config.loss_on, progress)

    drawn = [unanswered(examples[index]) for index in (held_back or train)[: config.sample_count]]
    return Prepared(tokenizer, encode(train), encode(held_back), sample_prompts(config, drawn, tokenizer))


def _prepare_pairs(
    config: DpoConfig | RewardConfig,
    run: RunFile,
    source: Path | Shape,
    held_out: HeldOutSet | None,
    run_dir: RunDir,
    journal: Journal,
) -> PreparedPairs:
    journal.status("reading data")
    parts = load_pairs(config.dataset, run.inputs, journal, Commits(run_dir.commits))
    pairs = joined(_guarded(parts, run, held_out, run_dir, journal))
    train, held_back = _split(pairs, config)
    tokenizer = _tokenizer(source, pairs, journal)
    journal.status("tokenizing")
    progress = _progress(journal, "pairs")

    def encode(which: Sequence[int]) -> PairSet:
        return encode_pairs(pairs, tokenizer, config.max_length, progress, which)

    prompts = []
    if isinstance(config, SamplingConfig):
        shown = {tuple(prompt_of(pairs[index])): index for index in reversed(held_back or train)}  # each prompt once
        drawn = [Example(messages=pairs[index].prompt) for index in sorted(shown.values())]
        prompts = sample_prompts(config, drawn, tokenizer)
    return PreparedPairs(tokenizer, encode(train), encode(held_back), prompts)


def _guarded(
    parts: list[Part[R]], run: RunFile, held_out: HeldOutSet | None, run_dir: RunDir, journal: Journal
) -> list[Part[R]]:
    """What may be trained on."""
    if held_out is None:
        return parts
    from training.leak_guard import without_held_out

    return without_held_out(parts, held_out, run, run_dir, journal)


def _split(rows: Sequence[Example] | Sequence[Pair], config: TrainingConfig) -> tuple[list[int], list[int]]:
    train, held_back = split([prompt_of(row) for row in rows], config.eval_fraction, config.seed)
    return train.tolist(), held_back.tolist()


def _tokenizer(source: Path | Shape, rows: Sequence[Example] | Sequence[Pair], journal: Journal) -> Any:
    """The model's own tokenizer; for a fresh model, one that is trained on all words of the data."""
    if isinstance(source, Path):
        return load_tokenizer(source)
    journal.status("training a tokenizer")
    return train_tokenizer((content for row in rows for content in row.contents()), source.vocab)


def _progress(journal: Journal, unit: str) -> Callable[[int, int], None]:
    throttle = Throttle()

    def progress(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress("tokenizing", done, total, unit)

    return progress


def _report(prepared: PreparedData[T], noun: str, max_length: int, journal: Journal) -> None:
    """Tell what the data came to, and what was cut off it."""
    train, held_back = prepared.train, prepared.held_back
    scored = int(train.scored.sum())
    eval_words = f"{len(held_back):,} are held back for eval" if len(held_back) else "none are held back for eval"
    journal.log(
        f"{len(train):,} {noun}s to train on, with {len(train.ids):,} tokens, {scored:,} of them scored; {eval_words}."
    )
    cut, lost = train.truncated + held_back.truncated, train.tokens_cut + held_back.tokens_cut
    if not cut:
        journal.log(f"No {noun} is longer than {max_length:,} tokens: nothing was cut.")
        return
    share = lost / (lost + len(train.ids) + len(held_back.ids))
    journal.log(
        f"{were(cut, noun)} longer than {max_length:,} tokens and cut at the end: "
        f"{lost:,} tokens ({share:.1%}) were lost.",
        "warning",
    )
