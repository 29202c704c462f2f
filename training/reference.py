"""DPO's reference: the frozen model that the trained one is kept near to, and what it says of every pair."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import MicroBatch, micro_batches
from training.config import DpoConfig
from training.data.pairs import PairSet
from training.device import Device, is_out_of_memory
from training.errors import OutOfMemory, Stopped
from training.failpoints import failpoint
from training.files import disk_errors
from training.journal import Journal
from training.loading import Loaded
from training.model_files import Shape
from training.opening import open_model
from training.pair_forward import PairForward, prepare_pair_forward
from training.preparation import model_identity
from training.reference_store import ReferenceStore
from training.rundir import RunFile
from training.throttle import Throttle

SHARD = 1024
"""Pairs whose log-probabilities are kept together. A pass that is killed goes on behind its last whole shard, and
shards are cut from what is missing in order: the same pairs then go through the model side by side as they would have."""


@dataclass
class Reference:
    """The frozen model. It is loaded when first needed, lies in main memory, and visits the device while it works.

    `half_weights`: it runs with bf16 weights, as the trained model's frozen ones do under LoRA, so that both round alike.
    """

    open: Callable[[], Loaded]
    identity: str  # fingerprint of its weights
    device: Device
    max_length: int
    half_weights: bool = False
    _loaded: Loaded | None = None
    _forward: PairForward | None = None

    def fingerprint(self) -> str:
        """What its log-probabilities depend on beside the tokens: weights, device and precision."""
        facts = f"{self.identity} {self.device.torch.type} {self.device.half} {self.half_weights}"
        return hashlib.sha256(facts.encode()).hexdigest()

    def unload(self) -> None:
        """Free its memory; it is loaded again when needed."""
        self._loaded = self._forward = None

    @contextlib.contextmanager
    def visiting(self) -> Iterator[PairForward]:
        """The reference on the device, for as long as the block lasts."""
        self._loaded = self._loaded or self.open()
        model: Any = self._loaded.model
        at_rest = self._loaded.source_dtype if self.device.is_gpu else torch.float32
        model.to(device=self.device.torch, dtype=torch.bfloat16 if self.half_weights else torch.float32)
        model.eval()
        try:
            if self._forward is None:
                self._forward, _ = prepare_pair_forward(model, self.device, self.max_length)
            with torch.no_grad():
                yield self._forward
        finally:
            if self.device.is_gpu:  # the dtype it was saved in holds it exactly, in half the memory
                model.to(device="cpu", dtype=at_rest)
                torch.cuda.empty_cache()


def open_reference(
    config: DpoConfig, run: RunFile, source: Path | Shape, tokenizer: Any, trained: Loaded, device: Device
) -> Reference:
    """The reference of a run, not loaded yet. `trained`: the model that it is held against."""
    text = config.reference_model or config.model
    identity = model_identity(source, run.inputs.get(text))
    if isinstance(source, Shape):  # its weights are drawn from the seed, as many as there are words
        identity += f" {config.seed} {len(tokenizer)}"
    return Reference(
        open=lambda: open_model(source, tokenizer, run.inputs.get(text), config.seed),
        identity=identity,
        device=device,
        max_length=config.max_length,
        half_weights=config.lora_rank is not None and device.half and trained.source_dtype == torch.bfloat16,
    )


def reference_logprobs(
    reference: Reference, parts: Sequence[PairSet], folder: Path, limit: MicroBatch, journal: Journal,
    stop: Callable[[], bool],
) -> list[NDArray[np.float32]]:  # fmt: skip
    """Summed log-probabilities of chosen and rejected under the reference, (n, 2) for each part.

    Taken from the store under `folder` as far as it knows them; the rest is computed, and kept there. Raises Stopped
    (what was computed stays), OutOfMemory, DiskFull.
    """
    store = ReferenceStore(folder / reference.fingerprint())
    keys = [[pairs.key(index) for index in range(len(pairs))] for pairs in parts]
    missing = [store.missing(each) for each in keys]
    count, total = sum(map(len, missing)), sum(map(len, keys))
    if not count:
        journal.log(f"The reference's log-probabilities of all {total:,} pairs are kept from an earlier run.")
        return [store.find(each) for each in keys]
    known = f"{count:,} of {total:,} pairs; the others are known" if count < total else f"{count:,} pairs"
    journal.log(f"The reference reads {known}.")
    journal.status("reading with the reference")
    done, throttle = 0, Throttle()
    with reference.visiting() as forward:
        for pairs, names, absent in zip(parts, keys, missing, strict=True):
            for start in range(0, len(absent), SHARD):
                shard = absent[start : start + SHARD]
                values, limit = _logprobs(forward, pairs, shard, limit, stop)
                with disk_errors("the reference's log-probabilities"):
                    store.add([names[index] for index in shard], values)
                failpoint("after_reference_shard")
                done += len(shard)
                if throttle.ready() or done == count:
                    journal.progress("reading with the reference", done, count, "pairs")
    return [store.find(each) for each in keys]


def _logprobs(
    forward: PairForward, pairs: PairSet, chosen: Sequence[int], limit: MicroBatch, stop: Callable[[], bool]
) -> tuple[NDArray[np.float32], MicroBatch]:
    """(n, 2) for the chosen pairs, and the micro-batch that fitted."""
    while True:
        try:
            return _pass(forward, pairs, chosen, limit, stop), limit
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        smaller = limit.halved()
        if smaller is None:
            raise OutOfMemory(
                "The device has too little memory for the reference model, even for one pair at a time.",
                "Shorten the longest example, or take a smaller reference model.",
            )
        limit = smaller


def _pass(
    forward: PairForward, pairs: PairSet, chosen: Sequence[int], limit: MicroBatch, stop: Callable[[], bool]
) -> NDArray[np.float32]:
    place = {index: row for row, index in enumerate(chosen)}
    values = np.empty((len(chosen), 2), np.float32)
    for batch in micro_batches(chosen, forward.lengths(pairs), limit, forward.padded):
        if stop():
            raise Stopped
        values[[place[index] for index in batch]] = forward.logprobs(pairs, batch).float().cpu().numpy()
    return values
