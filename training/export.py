"""The finished model as a folder that transformers loads: `model/`, whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.config import TrainingConfig
from training.failpoints import failpoint
from training.files import disk_errors, sha256_of, sync_file
from training.loading import Loaded
from training.rundir import RunDir, sync_directory
from training.tokenizer import save_tokenizer


def export_model(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, card: str, run_dir: RunDir) -> dict[str, str]:
    """Write `model/`, and `outputs/adapter` with LoRA. Uses the model up. Returns SHA-256 by file. Raises DiskFull.

    The weights are saved in the precision that they came in: a bf16 model stays one, half the size and what others
    load; the unrounded fp32 weights remain in the best checkpoint.
    """
    with disk_errors("the model"):
        if loaded.adapter is not None:
            run_dir.outputs.mkdir(mode=0o700, exist_ok=True)
            _write_folder(run_dir.outputs / "adapter", lambda folder: _save_adapter(loaded, folder))
            loaded.model.float()  # so that the product is rounded once, with the sum
            loaded.model = loaded.adapter.merge_and_unload()
        model: Any = loaded.model
        model.to(loaded.source_dtype)

        def fill(folder: Path) -> None:
            model.config.use_cache = True
            model.save_pretrained(folder)
            save_tokenizer(tokenizer, folder)
            (folder / "README.md").write_text(card)

        _write_folder(run_dir.model, fill)
    failpoint("after_export")
    return hashes(run_dir.model)


def hashes(folder: Path) -> dict[str, str]:
    return {each.name: sha256_of(each) for each in sorted(folder.iterdir()) if each.is_file()}


def _save_adapter(loaded: Loaded, folder: Path) -> None:
    assert loaded.adapter is not None
    loaded.adapter.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a card, with nothing in it


def _write_folder(place: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder beside its place, sync all of it, then rename."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(mode=0o700)
        fill(temporary)
        for file in temporary.iterdir():
            sync_file(file)
        sync_directory(temporary)
        failpoint("before_model_rename")
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
        sync_directory(place.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def model_card(config: TrainingConfig, name: str, experiment: str, facts: dict[str, object]) -> str:
    """README.md of the model: what it is made from, how, and how well it did."""
    settings = config.model_dump(exclude={"stage", "model", "dataset", "priority"}, exclude_defaults=True)
    rows = [("Made from", config.model), ("Data", ", ".join(config.dataset)), *facts.items()]
    lines = [
        "---", "library_name: transformers", "pipeline_tag: text-generation", f"tags: [preflab, {config.stage}]", "---",
        "", f"# {name}", "", f"Run “{name}” of the experiment “{experiment}”, stage {config.stage}, made with Preflab.",
        "", "| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows),
        "", "## Settings that were not the defaults", "",
        *(f"- `{key}`: {_cell(value)}" for key, value in settings.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.replace("|", "\\|").split())
