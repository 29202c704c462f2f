from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.small import logs
from training import checkpoint
from training.checkpoint import Damaged, TrainState
from training.errors import DiskFull
from training.journal import Journal
from training.rundir import RunDir


class Trained:
    """A model, an optimizer that made a step, and the places to save them."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.run_dir = RunDir(folder)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)
        self.journal = Journal(self.run_dir.journal, 1)
        self.state = TrainState()
        self.step()

    def step(self) -> None:
        self.model(torch.randn(5, 4)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, step: int, full: bool = True, best: int | None = None) -> checkpoint.Checkpoint:
        self.state.step, self.state.best_step = step, best
        optimizer = self.optimizer if full else None
        return checkpoint.save(self.run_dir, self.model, self.state, optimizer, checkpoint.rng_state(), self.journal)

    def newest(self) -> int | None:
        found = checkpoint.newest(self.run_dir, self.journal)
        return found.step if found else None

    def steps(self) -> list[int]:
        return sorted(step for step, _ in checkpoint.names(self.run_dir))


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def test_what_comes_back_is_what_was_saved_to_the_last_bit(trained: Trained, tmp_path: Path) -> None:
    saved = trained.save(7)
    trained.step()
    expected = [each.detach().clone() for each in trained.model.parameters()], torch.rand(3)
    other = Trained(tmp_path)
    checkpoint.load_weights(saved, other.model)
    checkpoint.load_optimizer(saved, other.model, other.optimizer)
    checkpoint.load_rng(saved)
    assert checkpoint.load_state(saved) == trained.state
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(expected[0], other.model.parameters(), strict=True))
    assert torch.equal(expected[1], torch.rand(3))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_one_flipped_bit_anywhere_and_the_previous_one_is_used(trained: Trained, name: str) -> None:
    trained.save(1)
    file = trained.save(2).path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert trained.newest() == 1
    assert f"step-000002 is damaged ({name} has changed since it was written)" in logs(trained.run_dir)
    assert trained.steps() == [1], "what is damaged is removed"


@pytest.mark.parametrize("name", ["manifest.json", "optimizer.safetensors"])
def test_one_with_a_file_missing_is_not_used(trained: Trained, name: str) -> None:
    trained.save(1)
    (trained.save(2).path / name).unlink()
    assert trained.newest() == 1
    assert f"({name} is missing)" in logs(trained.run_dir)


def test_one_with_half_a_file_is_not_used(trained: Trained) -> None:
    file = trained.save(1).path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert trained.newest() is None
    assert "wrong size" in logs(trained.run_dir)


def test_what_a_killed_save_left_is_cleared_away(trained: Trained) -> None:
    leftover = trained.run_dir.checkpoints / ".step-000003.1.tmp"
    trained.save(2)
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert trained.newest() == 2
    assert not leftover.exists()


def test_weights_alone_are_not_gone_on_from(trained: Trained) -> None:
    trained.save(1)
    trained.save(2, full=False)
    assert trained.newest() == 1
    assert trained.steps() == [1], "the run will make the later one again"


def test_pruning_keeps_the_latest_and_the_best_of_each(trained: Trained) -> None:
    trained.save(1)
    trained.save(2, full=False, best=2)
    trained.save(3, best=2)
    trained.save(4, full=False, best=4)
    trained.save(5, best=4)
    trained.save(6, best=4)
    checkpoint.prune(trained.run_dir, keep=3, best_step=4)
    assert trained.steps() == [2, 3, 4, 5, 6]
    checkpoint.prune(trained.run_dir, keep=2, best_step=4)
    assert trained.steps() == [4, 5, 6]
    checkpoint.prune(trained.run_dir, keep=1, best_step=4)
    assert trained.steps() == [4, 6]


def test_a_best_one_that_was_beaten_goes_unless_a_full_one_knows_it(trained: Trained) -> None:
    trained.save(1, full=False, best=1)
    trained.save(2, best=1)
    for best in (3, 4, 5):
        trained.save(best, full=False, best=best)
        checkpoint.prune(trained.run_dir, keep=1, best_step=best)
        assert trained.steps() == [1, 2, best]


def test_another_models_weights_are_refused(trained: Trained) -> None:
    saved = trained.save(1)
    with pytest.raises(Damaged, match="belongs to another model"):
        checkpoint.load_weights(saved, nn.Linear(4, 3))


def test_an_empty_optimizer_can_be_saved(trained: Trained) -> None:
    trained.optimizer.state.clear()
    saved = trained.save(0)
    checkpoint.load_optimizer(saved, trained.model, trained.optimizer)
    assert trained.newest() == 0


def test_a_full_disk_leaves_no_half_checkpoint(trained: Trained) -> None:
    import resource

    trained.save(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(DiskFull, match="The disk is full: the checkpoint could not be written"):
            trained.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.name for each in trained.run_dir.checkpoints.iterdir()] == ["step-000001"]
    assert trained.newest() == 1
