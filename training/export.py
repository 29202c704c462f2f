"""The finished model as a folder that transformers loads: `model/`, whole or not there."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.config import TrainingConfig
from training.failpoints import failpoint
from training.files import disk_errors, sha256_of, sync_file
from training.loading import Loaded, is_reward_model
from training.rundir import RunDir, sync_directory
from training.tokenizer import save_tokenizer, stop_ids


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
        if is_reward_model(model):
            tokenizer = _set_padding(model, tokenizer)

        def fill(folder: Path) -> None:
            model.config.use_cache = True
            model.save_pretrained(folder)
            save_tokenizer(tokenizer, folder)
            (folder / "README.md").write_text(card)

        _write_folder(run_dir.model, fill)
    failpoint("after_export")
    return hashes(run_dir.model)


def _set_padding(model: Any, tokenizer: Any) -> Any:
    """Name a padding token for transformers, which scores a sequence at its last token that is not one.

    So it may not be a token that answers end with. Where the tokenizer has no other, there is no padding, and
    transformers refuses batches rather than scoring them wrongly. Returns the tokenizer with that padding token.
    """
    ends = set(stop_ids(tokenizer))
    special = [index for index, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    free = [each for each in (tokenizer.pad_token_id, *special) if each is not None and each not in ends]
    model.config.get_text_config().pad_token_id = free[0] if free else None
    if free:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[0])
    return tokenizer


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
    """README.md of the model: what it is made from, how, how well it did, and how to read a reward model's score."""
    settings = config.model_dump(exclude={"stage", "model", "dataset", "priority"}, exclude_defaults=True)
    rows = [("Made from", config.model), ("Data", ", ".join(config.dataset)), *facts.items()]
    task = "text-classification" if config.stage == "reward" else "text-generation"
    lines = [
        "---", "library_name: transformers", f"pipeline_tag: {task}", f"tags: [preflab, {config.stage}]", "---",
        "", f"# {name}", "", f"Run “{name}” of the experiment “{experiment}”, stage {config.stage}, made with Preflab.",
        "", "| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows),
        "", *(HOW_TO_SCORE if config.stage == "reward" else ()),
        "## Settings that were not the defaults", "",
        *(f"- `{key}`: {_cell(value)}" for key, value in settings.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


HOW_TO_SCORE = (
    "## How to read a score", "",
    "The higher, the better the answer. Only differences between answers to one prompt mean something: the sigmoid of",
    "a difference is the probability that the first answer is preferred.", "",
    "```python",
    "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
    "",
    'tokenizer = AutoTokenizer.from_pretrained("model")',
    'model = AutoModelForSequenceClassification.from_pretrained("model")',
    'chat = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4."}]',
    "text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip()",
    'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")',
    "print(model(**inputs).logits.item())",
    "```", "",
)  # fmt: skip


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.replace("|", "\\|").split())
