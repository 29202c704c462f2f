"""Losses and gradients against TRL's trainers, on the same rows, models and tokenizer (fp32)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer, RewardTrainer
from trl import RewardConfig as TrlRewardConfig

from tests.training.small import make_model, pairs
from training.batches import MicroBatch
from training.config import DpoConfig
from training.data.examples import Pair
from training.data.pairs import PairSet, encode_pairs
from training.device import Device
from training.journal import Journal
from training.loading import Loaded, as_reward_model, load_model
from training.pair_forward import prepare_pair_forward
from training.reference import Reference, reference_logprobs
from training.stages.dpo import DpoTask
from training.stages.reward import measure
from training.tokenizer import load_tokenizer

CPU = Device(torch.device("cpu"), half=False)
COUNT, LENGTH = 12, 128


def rows() -> list[dict[str, Any]]:
    """As TRL takes them: answers as messages."""
    return [
        {
            "prompt": row["prompt"],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in pairs(COUNT)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and another one of the same tokenizer as its reference."""
    place = tmp_path_factory.mktemp("models")
    return make_model(place / "model"), make_model(place / "reference", seed=1)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """The whole gradient to 1e-5 of its norm, and each tensor to 1e-4 of its own."""
    assert ours.keys() == theirs.keys()
    difference = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    assert difference <= 1e-5 * sum(float(each.square().sum()) for each in theirs.values()) ** 0.5
    for name, each in theirs.items():
        assert float((ours[name] - each).norm()) <= 1e-4 * float(each.norm()), name


def of_trl(trainer: Any) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """The loss over all rows at once, its gradient, and the batch that both are of."""
    trainer.model.train()
    [batch] = list(trainer.get_train_dataloader())
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch)))
    loss.backward()
    return float(loss.detach()), gradients(trainer.model), batch


def pairs_of(batch: dict[str, Tensor]) -> PairSet:
    """TRL's batch as our pairs, token by token: it scores the template's line break behind the end of a turn too."""
    parts: list[Tensor] = []
    scored: list[Tensor] = []
    for chosen in range(COUNT):
        sides = (chosen, COUNT + chosen)
        answers = [batch["input_ids"][row][batch["completion_mask"][row].bool()] for row in sides]
        whole = batch["input_ids"][chosen][batch["attention_mask"][chosen].bool()]
        prompt = whole[: len(whole) - len(answers[0])]
        parts += [prompt, *answers]
        scored += [torch.zeros(len(prompt)), *(torch.ones(len(each)) for each in answers)]
    return PairSet(
        ids=torch.cat(parts).to(torch.int32).numpy(), scored=torch.cat(scored).bool().numpy(),
        offsets=np.cumsum([0, *map(len, parts)]), source=np.arange(COUNT),
    )  # fmt: skip


def trl_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": COUNT, "max_length": LENGTH, "bf16": False,
        "gradient_checkpointing": False, "report_to": "none", "use_cpu": True, **settings,
    }  # fmt: skip


class Told:
    """What DpoTask wants of a run's preparation."""

    prompts: Sequence[Any] = ()

    def __init__(self, tokens: PairSet) -> None:
        self.train = self.held_back = tokens


@pytest.mark.parametrize("kept", [False, True], ids=["reference computed", "reference kept"])
@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "ipo"])
def test_the_dpo_loss_and_its_gradient_are_trls(
    loss: str, kept: bool, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders]
    settings = trl_settings(tmp_path, beta=0.3, loss_type=[loss], precompute_ref_log_probs=kept)
    trainer = DPOTrainer(
        model=models[0], ref_model=models[1], args=TrlDpoConfig(**settings),
        train_dataset=Dataset.from_list(rows()), processing_class=load_tokenizer(folders[0]),
    )  # fmt: skip
    their_loss, theirs, batch = of_trl(trainer)
    tokens = pairs_of(batch)

    config = DpoConfig.model_validate({"model": "run:a", "dataset": "data:b", "loss": loss, "beta": 0.3})
    model = load_model(folders[0]).model
    forward, _ = prepare_pair_forward(model, CPU, LENGTH)
    journal = Journal(tmp_path / "journal.jsonl", 1)
    for _ in range(2 if kept else 1):
        reference = Reference(lambda: load_model(folders[1]), "reference", CPU, LENGTH)
        limit = MicroBatch(examples=5)
        said = reference_logprobs(reference, [tokens] * 2, tmp_path / "kept", limit, journal, lambda: False)
    told: Any = Told(tokens)
    task = DpoTask(config, told, forward, reference, said, journal)
    model.train()
    parts = task.parts(range(COUNT), COUNT, step=1)
    parts["loss"].backward()
    assert float(parts["loss"].detach()) == pytest.approx(their_loss, rel=1e-5)
    assert_close(gradients(model), theirs)
    measured = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    for ours, name in {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}.items():
        assert float(parts[ours]) == pytest.approx(measured[name], rel=1e-4), name
    assert float(parts["logp_chosen"]) == pytest.approx(measured["logps/chosen"], rel=1e-5)
    assert float(parts["logp_rejected"]) == pytest.approx(measured["logps/rejected"], rel=1e-5)


def test_the_reward_loss_and_its_gradient_are_trls(folders: tuple[Path, Path], tmp_path: Path) -> None:
    loaded: Loaded = as_reward_model(load_model(folders[0]), seed=3)
    model = loaded.model
    model.score.weight.data.mul_(50)  # so that rewards differ
    model.save_pretrained(tmp_path / "model")
    theirs_model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32)
    trainer = RewardTrainer(
        model=theirs_model, args=TrlRewardConfig(**trl_settings(tmp_path)),
        train_dataset=Dataset.from_list(rows()), processing_class=load_tokenizer(folders[0]),
    )  # fmt: skip
    their_loss, theirs, _ = of_trl(trainer)
    tokens = encode_pairs([Pair(**row) for row in rows()], load_tokenizer(folders[0]), LENGTH)
    assert len(tokens) == COUNT

    forward, _ = prepare_pair_forward(model, CPU, LENGTH)
    model.train()
    values = measure(forward.rewards(tokens, range(COUNT)))
    values["loss"].mean().backward()
    assert float(values["loss"].detach().mean()) == pytest.approx(their_loss, rel=1e-5)
    assert abs(their_loss - 0.6931) > 0.01, "the rewards differ"
    assert_close(gradients(model), theirs)
    measured = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    assert float(values["accuracy"].mean()) == pytest.approx(measured["accuracy"])
    assert float(values["margin"].mean()) == pytest.approx(measured["margin"], rel=1e-4)
