from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are fastest on one thread, and tests share the machine."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.small import make_model

    return make_model(tmp_path_factory.mktemp("model") / "qwen2", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.small import write_chats

    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl")
