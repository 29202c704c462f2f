"""Models and data sets from the Hub: pinned to a commit, resumable (`training.hub_cache`), and no code of theirs run."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.commits import Commits
from training.errors import DataError, ModelError
from training.hub_cache import Repo, fetch, open_repo
from training.hub_errors import explained, first_line
from training.journal import Journal
from training.model_files import CAUSAL, read_model_config
from training.references import Reference

MODEL_FILES = (
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
READERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv",
           ".txt": "text", ".arrow": "arrow"}  # fmt: skip
"""Which of `datasets`' readers reads which file."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def fetch_model(reference: Reference, journal: Journal, commits: Commits, ends: tuple[str, ...] = CAUSAL) -> Path:
    """The folder of a model of the Hub, with its weights, config and tokenizer. Raises HubError, ModelError, DiskFull.

    `ends`: of its architecture's name (training.model_files).
    """
    with explained(reference, "model"):
        repo = open_repo(reference, "model", commits)
        paths = [path for path in repo.files if any(fnmatch.fnmatchcase(path, form) for form in MODEL_FILES)]
        weights = [path for path in paths if path.endswith(".safetensors")]
        if not weights:
            pickles = any(fnmatch.fnmatchcase(path, form) for path in repo.files for form in PICKLES)
            raise ModelError(
                f"{repo.name} has {'only pickle weights' if pickles else 'no weights'}; Preflab loads safetensors alone.",
                "Take another revision or model, or convert it (https://huggingface.co/spaces/safetensors/convert).",
            )
        if "config.json" in paths:
            read_model_config(fetch(repo, ["config.json"], journal), ends)
        folder = fetch(repo, paths, journal)
        journal.artifact("model", str(reference), revision=repo.commit, files=len(paths), bytes=_size(repo, paths))
        return folder


def fetch_dataset(reference: Reference, journal: Journal, commits: Commits) -> Iterator[dict[str, Any]]:
    """The rows of a split of a data set of the Hub. Raises HubError, DataError, DiskFull.

    Only the files of this config and split are downloaded, and read as they lie there: no code of the repository
    is run.
    """
    with explained(reference, "dataset"):
        repo = open_repo(reference, "dataset", commits)
        split, paths = _split_files(repo, reference, journal)
        reader = _reader(reference, paths)
        folder = fetch(repo, paths, journal)
        journal.artifact(
            "data set", str(reference), revision=repo.commit, split=split, files=len(paths), bytes=_size(repo, paths)
        )
    return _rows(reference, reader, [folder / path for path in paths])


def _size(repo: Repo, paths: list[str]) -> int:
    return sum(repo.files[path][0] for path in paths)


def _split_files(repo: Repo, reference: Reference, journal: Journal) -> tuple[str, list[str]]:
    """The split that the reference means, and its files' paths in the repository."""
    script = f"{repo.id.rpartition('/')[2]}.py"
    if script in repo.files:
        raise DataError(
            f"{reference} is made by a script ({script}), and Preflab runs no code of a data set.",
            f"Most have a converted copy: hf:{repo.id}@refs/convert/parquet.",
        )
    readme = [path for path in ("README.md",) if path in repo.files]
    folder = fetch(repo, readme, journal) if readme else None
    splits = _splits(repo, folder, reference.options.get("config"), reference)
    split = reference.options.get("split") or ("train" if "train" in splits else next(iter(splits)))
    if split not in splits or ("split" not in reference.options and len(splits) > 1 and "train" not in splits):
        raise DataError(
            f"{reference} has the splits {', '.join(sorted(splits))}"
            + (f", but no “{split}”." if split not in splits else "; say which."),
            f"For example: hf:{repo.id}?split={sorted(splits)[0]}.",
        )
    return split, splits[split]


def _splits(repo: Repo, folder: Path | None, config: str | None, reference: Reference) -> dict[str, list[str]]:
    """Each split's files, found as `datasets` finds them: by the card's YAML, else by the files' names.

    The library looks at a copy of the repository in which only the card has content.
    """
    import datasets

    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary).resolve() / repo.id.rpartition("/")[2]
        for path in repo.files:
            target = copy / path
            if copy not in target.parents:
                raise DataError(f"{reference} holds a file outside its folder ({path}).", "Do not use this data set.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        if folder is not None:
            (copy / "README.md").write_bytes((folder / "README.md").read_bytes())
        try:
            builder = datasets.load_dataset_builder(str(copy), name=config)
        except Exception as error:  # whatever the library raises, there is no such data
            reason = " ".join(str(error).replace(str(copy), repo.id).split())[:300].rstrip(".")
            raise DataError(
                f"{reference}: no data files were found: {reason}.",
                "Name one of its configs (?config=..), or take a repository of JSON Lines or Parquet files.",
            ) from error
        return {
            str(split): [str(Path(file).relative_to(copy)) for file in files]
            for split, files in (builder.config.data_files or {}).items()
        }


def _reader(reference: Reference, files: list[str]) -> str:
    """Which of `datasets`' readers reads these files. Raises DataError."""
    found = {next((READERS[end] for end in Path(file).suffixes[::-1] if end in READERS), "") for file in files}
    if len(found) != 1 or "" in found:
        raise DataError(
            f"{reference} holds files that cannot be read as rows, such as {files[0]}.",
            "Preflab reads JSON Lines, Parquet, CSV, Arrow and text files.",
        )
    return found.pop()


def _rows(reference: Reference, reader: str, files: list[Path]) -> Iterator[dict[str, Any]]:
    import datasets

    rows = datasets.load_dataset(reader, data_files=[str(file) for file in files], split="train", streaming=True)
    try:
        for table in rows.with_format("arrow").iter(batch_size=1000):
            yield from table.to_pylist()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{reference} cannot be read: {first_line(error)}.", "The files are damaged, or their rows differ in form."
        ) from error
