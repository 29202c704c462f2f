"""Small random reward models, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.training.small import chats
from training.tokenizer import save_tokenizer, train_tokenizer


def make_reward_model(folder: Path, kind: str = "qwen2", seed: int = 0, labels: int = 1, **changes: Any) -> Path:
    """A sequence classifier with a tokenizer trained on the chats; scores spread over some units."""
    tokenizer = train_tokenizer([m["content"] for row in chats(64) for m in row["messages"]], 300)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.15,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "num_labels": labels,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **(sizes | changes)))
    with torch.no_grad():
        model.score.weight.normal_(std=1.0)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder
