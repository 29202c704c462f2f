from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.augmenting.making import ASK, make_judge, make_writer, sums, write_lines


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return make_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory, writer: Path) -> Path:
    return make_judge(tmp_path_factory.mktemp("judge"), writer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "sums.jsonl", sums())


@pytest.fixture
def ask(tmp_path: Path) -> str:
    """Writing instructions that the small writer has learnt."""
    (tmp_path / "ask.txt").write_text(ASK)
    return f"path:{tmp_path / 'ask.txt'}"
