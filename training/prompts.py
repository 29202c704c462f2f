"""The fixed prompts that a model answers from time to time while it learns. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.config import SamplingConfig
from training.data.encoding import chat_template
from training.data.examples import Example
from training.data.lines import RowError
from training.errors import InputError

SHOWN_WORDS = 24  # of a text: its beginning is the prompt of a sample


@dataclass(frozen=True)
class Prompt:
    """A fixed prompt that the model answers from time to time: what is shown, and its tokens."""

    text: str
    ids: list[int]


def sample_prompts(config: SamplingConfig, drawn: Sequence[Example], tokenizer: Any) -> list[Prompt]:
    """The config's own sample prompts, else the first of those drawn: chats without their answer, or texts' beginnings.

    Raises InputError where the chat template refuses one.
    """
    template, encode = chat_template(tokenizer), tokenizer.backend_tokenizer.encode
    if config.sample_prompts:
        chats = [Example(messages=[{"role": "user", "content": text}]) for text in config.sample_prompts]
    else:
        chats = list(drawn[: config.sample_count])
    prompts = []
    for chat in chats:
        if chat.messages is None:
            prompts.append(Prompt(chat.text or "", encode(chat.text or "").ids[: config.max_length]))
            continue
        try:
            text = template.render(chat.messages, add_generation_prompt=True)
        except RowError as error:
            raise InputError(
                f"A sample prompt cannot be asked: {error.message}", error.hint, field="sample_prompts"
            ) from None
        ids = encode(text, add_special_tokens=False).ids[-config.max_length :]
        prompts.append(Prompt("\n\n".join(message["content"] for message in chat.messages), ids))
    return [prompt for prompt in prompts if prompt.ids]


def unanswered(example: Example) -> Example:
    """A chat up to its first answer, or a text's beginning."""
    if example.messages is None:
        return Example(text=" ".join((example.text or "").split()[:SHOWN_WORDS]))
    first = next((i for i, message in enumerate(example.messages) if message["role"] == "assistant"), None)
    return Example(messages=example.messages[:first])
