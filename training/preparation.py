"""From a config's references to tokens: what happens before a model is loaded.

What comes out is kept in the run's cache, so that a resumed run neither reads nor tokenizes its data again. The cache
may be deleted at any time: the same inputs give the same tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from training.commits import Commits
from training.config import SftConfig, TrainingConfig
from training.data.encoding import TokenSet, chat_template, encode_examples
from training.data.formats import Example
from training.data.sources import load_examples
from training.data.splits import split
from training.errors import DataError, InputError
from training.files import disk_errors, sha256_of
from training.hub import fetch_model
from training.journal import Journal
from training.model_files import Shape, find_shape, inspect_model, weight_files
from training.references import parse_reference
from training.rundir import ResolvedInput, RunDir, RunFile, write_json
from training.throttle import Throttle
from training.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

SHOWN_WORDS = 24  # of a text: its beginning is the prompt of a sample


@dataclass(frozen=True)
class Prompt:
    """A fixed prompt that the model answers from time to time: what is shown, and its tokens."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class Prepared:
    """The data of a run, as tokens."""

    tokenizer: Any
    train: TokenSet
    held_back: TokenSet
    prompts: list[Prompt]

    def fingerprint(self) -> str:
        """SHA-256 of all tokens and of their split."""
        digest = hashlib.sha256()
        for tokens in (self.train, self.held_back):
            for array in (tokens.ids, tokens.scored, tokens.offsets):
                digest.update(array.tobytes())
        return digest.hexdigest()


def find_model(config: TrainingConfig, run: RunFile, run_dir: RunDir, journal: Journal) -> Path | Shape:
    """The model's folder, fetched if need be, or the shape of a new one; checked to fit the config."""
    reference = parse_reference(config.model)
    if reference.kind == "new":
        return find_shape(reference.name, config.max_length)
    if reference.kind == "hf":
        folder = fetch_model(reference, journal, Commits(run_dir.commits))
    else:
        found = run.inputs.get(config.model)
        if found is None or found.path is None:
            raise InputError(
                f"{config.model} was not found.", "Check the name, or choose another model.", field="model"
            )
        folder = Path(found.path)
    inspect_model(folder, config.max_length)
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
    """Read, split and tokenize the run's data, or take what an earlier attempt made of it."""
    key = _key(config, run)
    prepared = _from_cache(run_dir, key)
    if prepared is None:
        prepared = _make(config, run, source, run_dir, journal)
        with disk_errors("the tokens"):
            _to_cache(prepared, run_dir, key)
    if not len(prepared.train):
        raise DataError(
            f"No example has anything to learn within {config.max_length:,} tokens.",
            "Raise “Longest example”, or check that the chats have assistant turns.",
            field="dataset",
        )
    _report(prepared, config, journal)
    return prepared


def _make(config: SftConfig, run: RunFile, source: Path | Shape, run_dir: RunDir, journal: Journal) -> Prepared:
    journal.status("reading data")
    examples = load_examples(config.dataset, run.inputs, journal, Commits(run_dir.commits))
    train, held_back = split(examples, config.eval_fraction, config.seed)
    if isinstance(source, Shape):
        journal.status("training a tokenizer")
        tokenizer = train_tokenizer(_texts(examples), source.vocab)
    else:
        tokenizer = load_tokenizer(source)
    journal.status("tokenizing")
    throttle = Throttle()

    def progress(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress("tokenizing", done, total, "examples")

    def encode(chosen: Iterable[int]) -> TokenSet:
        return encode_examples(
            [examples[index] for index in chosen], tokenizer, config.max_length, config.loss_on, progress
        )

    prompts = _prompts(config, [examples[index] for index in (held_back if len(held_back) else train)], tokenizer)
    return Prepared(tokenizer, encode(train), encode(held_back), prompts)


def _texts(examples: Sequence[Example]) -> list[str]:
    """All words of the data, for a tokenizer to be trained on."""
    return [
        content
        for example in examples
        for content in ([example.text] if example.text is not None else [m["content"] for m in example.messages or []])
    ]


def _prompts(config: SftConfig, examples: Sequence[Example], tokenizer: Any) -> list[Prompt]:
    """The config's own sample prompts, else those of the first examples."""
    template, encode = chat_template(tokenizer), tokenizer.backend_tokenizer.encode
    if config.sample_prompts:
        chats = [Example(messages=[{"role": "user", "content": text}]) for text in config.sample_prompts]
    else:
        chats = [_unanswered(example) for example in examples[: config.sample_count]]
    prompts = []
    for chat in chats:
        if chat.messages is None:
            prompts.append(Prompt(chat.text or "", encode(chat.text or "").ids[: config.max_length]))
        else:
            text = template.render(chat.messages, add_generation_prompt=True)
            ids = encode(text, add_special_tokens=False).ids[-config.max_length :]
            prompts.append(Prompt("\n\n".join(message["content"] for message in chat.messages), ids))
    return [prompt for prompt in prompts if prompt.ids]


def _unanswered(example: Example) -> Example:
    """A chat up to its first answer, or a text's beginning."""
    if example.messages is None:
        return Example(text=" ".join((example.text or "").split()[:SHOWN_WORDS]))
    first = next((i for i, message in enumerate(example.messages) if message["role"] == "assistant"), None)
    return Example(messages=example.messages[:first])


def _report(prepared: Prepared, config: SftConfig, journal: Journal) -> None:
    """Tell what the data came to, and what was lost of it."""
    train, held_back = prepared.train, prepared.held_back
    scored = int(train.scored.sum())
    eval_words = f"{len(held_back):,} are held back for eval" if len(held_back) else "none are held back for eval"
    journal.log(
        f"{len(train):,} examples to train on, with {len(train.ids):,} tokens, {scored:,} of them scored; {eval_words}."
    )
    cut, lost = train.truncated + held_back.truncated, train.tokens_cut + held_back.tokens_cut
    if cut:
        share = lost / (lost + len(train.ids) + len(held_back.ids))
        journal.log(
            f"{cut:,} examples are longer than {config.max_length:,} tokens and were cut at the end: "
            f"{lost:,} tokens ({share:.1%}) were lost.",
            "warning",
        )
    else:
        journal.log(f"No example is longer than {config.max_length:,} tokens: nothing was cut.")
    empty = train.empty + held_back.empty
    if empty:
        journal.log(f"{empty:,} examples were left out: nothing of them was to be learnt.", "warning")


def _key(config: SftConfig, run: RunFile) -> str:
    """A hash of all that decides the tokens."""
    fields = config.model_dump(
        include={"model", "dataset", "eval_fraction", "max_length", "loss_on", "seed", "sample_prompts", "sample_count"}
    )
    inputs = [_identity(run, reference) for reference in config.references()]
    return hashlib.sha256(orjson.dumps([fields, inputs], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _identity(run: RunFile, reference: str) -> list[object]:
    """What an input is: its hash where that is known, else its file's size and time of change."""
    found = run.inputs.get(reference)
    if found is None or found.path is None:
        return [reference]
    path = Path(found.path)
    files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return [reference, found.path, found.sha256, facts]


def _to_cache(prepared: Prepared, run_dir: RunDir, key: str) -> None:
    folder = run_dir.cache
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "prepared.json").unlink(missing_ok=True)
    prepared.train.save(folder / "train.npz")
    prepared.held_back.save(folder / "eval.npz")
    save_tokenizer(prepared.tokenizer, folder / "tokenizer")
    prompts = [{"text": prompt.text, "ids": prompt.ids} for prompt in prepared.prompts]
    write_json(folder / "prepared.json", {"key": key, "prompts": prompts})


def _from_cache(run_dir: RunDir, key: str) -> Prepared | None:
    folder = run_dir.cache
    try:
        content = orjson.loads((folder / "prepared.json").read_bytes())
        if content["key"] != key:
            return None
        tokens = TokenSet.load(folder / "train.npz"), TokenSet.load(folder / "eval.npz")
        prompts = [Prompt(prompt["text"], prompt["ids"]) for prompt in content["prompts"]]
        return Prepared(load_tokenizer(folder / "tokenizer"), *tokens, prompts)
    except (FileNotFoundError, ValueError, KeyError):
        return None
