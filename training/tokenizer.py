"""Tokenizers: loaded so that ids are what tokenizer.json says, trained for fresh models, saved so that they reload.

transformers rebuilds a tokenizer from the class that the model's type is known for, with that class's own rules of
splitting, whatever tokenizer.json says: a custom tokenizer beside a qwen2 config gets other ids, and no word is said.
Here tokenizer.json decides, and every load and save is checked against it on samples.

Decisions:

- Chat template: the tokenizer's own; where there is none, ChatML (`training/data/chatml.jinja`), saved with it.
- End of a turn in ChatML: `<|im_end|>` where the vocabulary has it, else the end-of-text token. The embedding is
  never resized: a ChatML token that the vocabulary lacks is written as ordinary text.
- `stop_ids`: the token that ends a turn in the template, and the end-of-text token. Generation stops at either; so
  Qwen2.5's base models, whose template ends turns with `<|im_end|>` while their end of text is `<|endoftext|>`,
  stop where training taught them to.
- Padding: the tokenizer's own pad token, else the end-of-text token; padding is never scored or attended to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.data.encoding import chat_template
from training.errors import ModelError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MOST_CHARACTERS = 20_000_000  # that a tokenizer is trained on
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
SAMPLES = (
    "The quick brown fox jumps over 12 lazy dogs, 3,456.78 times.",
    "  Indented\n\n\tlines   with   runs of space \n",
    "Don't we'LL it's I'm; x = y**2 + f(z)[0] != {\"a\": 'b'}",
    "café naïve über 東京 日本語 привет 👩‍👩‍👧 e\u0301",
    "10 20 300 2024 007 1e-5",
    f"{TURN_START}user\nHello{TURN_END}\n{TURN_START}assistant\nHi there.{TURN_END}\n{END_OF_TEXT}",
)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, with a chat template, an end and a padding token. Raises ModelError."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make an empty one up
        raise ModelError(f"The folder {folder} holds no tokenizer (tokenizer.json).", "Save it beside the model.")
    try:
        if file.is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"The tokenizer in {folder} cannot be loaded: {_first_line(error)}.",
            "The folder needs tokenizer.json, as `save_pretrained` writes it.",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer in {folder} has no tokenizer.json.", "Save it again with transformers 5.")
    if file.is_file():
        _check(tokenizer, file)
    _complete(tokenizer, folder)
    return tokenizer


def _complete(tokenizer: Any, folder: Path) -> None:
    """Give it what training needs: an end of text, a padding token, one chat template."""
    if tokenizer.eos_token_id is None:
        vocabulary = tokenizer.get_vocab()
        found = next((token for token in (END_OF_TEXT, "</s>", TURN_END) if token in vocabulary), None)
        if found is None:
            raise ModelError(
                f"The tokenizer in {folder} has no end-of-text token, so a model could not learn to stop.",
                'Name one in tokenizer_config.json as "eos_token".',
            )
        tokenizer.eos_token = found
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template:
        tokenizer.chat_template = chatml(tokenizer)


def chatml(tokenizer: Any) -> str:
    """The ChatML template, with the end of a turn that this vocabulary has as one token."""
    template = resources.files("training.data").joinpath("chatml.jinja").read_text()
    return template if TURN_END in tokenizer.get_vocab() else template.replace(f"'{TURN_END}'", "eos_token")


def stop_ids(tokenizer: Any) -> list[int]:
    """Where generation stops: the token that ends an assistant's turn, then the end-of-text token."""
    turn_end = tokenizer.convert_tokens_to_ids(chat_template(tokenizer).turn_end() or tokenizer.eos_token)
    return list(dict.fromkeys([turn_end, tokenizer.eos_token_id]))


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer so that transformers reloads it with the same ids. Raises ModelError where it does not."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    _check(tokenizer, folder / "tokenizer.json")


def _check(tokenizer: Any, file: Path) -> None:
    """Raise ModelError unless the tokenizer encodes the samples as its file says."""
    sample = _first_difference(tokenizer, file)
    if sample is not None:
        raise ModelError(
            f"transformers reads {file} as another tokenizer: “{sample[:20].strip()}...” gets other token ids.",
            "Remove what contradicts tokenizer.json from tokenizer_config.json, or save the tokenizer again.",
        )


def _first_difference(tokenizer: Any, file: Path) -> str | None:
    plain = Tokenizer.from_file(str(file))
    plain.no_truncation()
    plain.no_padding()
    for sample in SAMPLES:
        if tokenizer.encode(sample, add_special_tokens=False) != plain.encode(sample, add_special_tokens=False).ids:
            return sample
    return None


def reload_warnings(folder: Path) -> list[str]:
    """What others should know who load this model folder's tokenizer through AutoTokenizer: a sentence, or nothing."""
    from transformers import AutoTokenizer

    file = folder / "tokenizer.json"
    if not file.is_file() or not (folder / "config.json").is_file():
        return []
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 (whatever the libraries raise, others cannot load it)
        return [f"transformers' AutoTokenizer cannot load this model's tokenizer ({_first_line(error)}); Preflab can."]
    if _first_difference(tokenizer, file) is None:
        return []
    return [
        f"transformers' AutoTokenizer takes this model's tokenizer for a {type(tokenizer).__name__} and gives other token"
        " ids than tokenizer.json; Preflab follows tokenizer.json. Elsewhere, load it with"
        " PreTrainedTokenizerFast.from_pretrained."
    ]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with ChatML's tokens, for a fresh model. The same texts give the same tokenizer.

    Numbers are not split into digits: a number that the texts repeat is one token, which small models calculate
    with far better. The vocabulary may come out smaller than asked where the texts hold too little; of many texts,
    the first MOST_CHARACTERS are enough.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in (END_OF_TEXT, TURN_START, TURN_END)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first_characters(texts, MOST_CHARACTERS), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT)
    fast.chat_template = chatml(fast)
    return fast


def _first_characters(texts: Iterable[str], most: int) -> Iterator[str]:
    for text in texts:
        if most <= 0:
            return
        yield text[:most]
        most -= len(text)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
