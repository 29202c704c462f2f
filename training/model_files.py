"""A model's folder, judged without torch and before any weight is read; and the shapes of fresh models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from training.errors import InputError, ModelError
from training.safetensors_files import Tensor, read_header

CAUSAL = ("ForCausalLM", "LMHeadModel")
SCORING = ("ForSequenceClassification",)
"""How the architectures' names end of models that write, and of those that score (reward models)."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
TRAINABLE = frozenset({"F64", "F32", "F16", "BF16"})
WHO_MAY_READ = "Check that it is a plain file, and that the user who runs Preflab may read it."
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")


@dataclass(frozen=True)
class ModelFacts:
    """What a model's folder says of itself. None: it does not say."""

    architecture: str | None
    model_type: str
    parameters: int
    dtype: str  # of most weights: F32, BF16, ...
    vocab_size: int | None  # as the config says
    embedding_rows: int | None  # as the weights have them
    tokenizer_size: int | None  # the highest token id + 1
    max_positions: int | None  # tokens
    sliding_window: int | None  # tokens
    has_chat_template: bool
    tied: bool  # input and output embedding are one
    bytes: int  # of the weights


def inspect_model(folder: Path, max_length: int | None = None, ends: tuple[str, ...] = CAUSAL) -> ModelFacts:
    """Check a folder from which training is to start, or that is to judge (`ends`: SCORING).

    Raises ModelError; InputError where max_length is too long.
    """
    try:
        facts = _inspect(folder, ends)
    except OSError as error:
        raise ModelError(f"{error.filename or folder} cannot be read: {error.strerror}.", WHO_MAY_READ) from None
    if max_length is not None:
        check_length(max_length, facts.max_positions)
    return facts


def _inspect(folder: Path, ends: tuple[str, ...]) -> ModelFacts:
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.", "Check the path; it names the folder of config.json.")
    config = read_model_config(folder, ends)
    files = weight_files(folder)
    tensors = [tensor for file in files for tensor in read_header(file)]
    facts = _facts(folder, config, files, tensors)
    _check_vocabulary(folder, facts)
    return facts


def check_length(max_length: int, most: int | None) -> None:
    """Raise InputError where examples may be longer than the model reads; None: it does not say how much it reads."""
    if most is not None and max_length > most:
        raise InputError(
            f"{max_length:,} tokens are asked of a model that reads {most:,} at most.",
            f"Set “Longest example” to {most:,} or less.",
            field="max_length",
        )


def read_model_config(folder: Path, ends: tuple[str, ...] = CAUSAL) -> dict[str, Any]:
    """config.json of a causal language model, or what `ends` says, that needs no code of its own. Raises ModelError."""
    path = folder / "config.json"
    config = _read_json(path, f"The folder {folder} holds no config.json, so it is no model.")
    architecture = _architecture(config)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} names no model_type.", "Save the model again with transformers' save_pretrained.")
    if config.get("auto_map"):
        raise ModelError(
            f"The model in {folder} needs code of its own (auto_map in config.json), which Preflab does not run.",
            "Take a model whose architecture transformers has built in.",
        )
    if config.get("quantization_config"):
        raise ModelError(f"The model in {folder} is quantised, so it cannot be trained.", "Take the original weights.")
    if architecture is not None and not architecture.endswith(ends):
        raise ModelError(
            f"The model in {folder} is a {architecture}, not a {_in_words(ends)}.",
            f"Take a model whose architecture ends in {ends[0]}.",
        )
    return config


def _in_words(ends: tuple[str, ...]) -> str:
    return "reward model" if ends == SCORING else "causal language model"


def _architecture(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(missing, "Name a folder that transformers' save_pretrained wrote.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", WHO_MAY_READ) from None
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.", "Copy or download the file again.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object.", "Copy or download the file again.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make the model, in the order of their names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(folder, index)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"The folder {folder} holds a LoRA adapter, not a model.", "Merge it into its base model first."
        )
    pickles = sorted(path.name for form in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(form))
    if pickles:
        raise ModelError(
            f"The folder {folder} has only pickle weights ({pickles[0]}), which can run any code when loaded.",
            'Convert them: `python -c "from transformers import AutoModelForCausalLM as M;'
            " M.from_pretrained('FOLDER').save_pretrained('NEW')\"`, if you trust their source.",
        )
    raise ModelError(f"The folder {folder} holds no weights (model.safetensors).", "Copy or download the model again.")


def _shards(folder: Path, index: Path) -> list[Path]:
    names = _read_json(index, "").get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} names no weight files.", "Copy or download the file again.")
    shards = sorted(set(names.values()))
    for name in shards:
        if Path(name).name != name:
            raise ModelError(f"{index} names a file outside the folder ({name[:80]}).", "Do not use this model.")
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"The folder {folder} lacks {len(missing)} of {len(shards)} weight files, such as {missing[0]}.",
            "Copy or download the rest.",
        )
    return [folder / name for name in shards]


def _facts(folder: Path, config: dict[str, Any], files: list[Path], tensors: list[Tensor]) -> ModelFacts:
    weights = [tensor for tensor in tensors if not tensor.name.endswith("inv_freq")]
    dtypes: Counter[str] = Counter()
    for tensor in weights:
        dtypes[tensor.dtype] += tensor.size
    if not dtypes:
        raise ModelError(f"The weights in {folder} hold no tensors.", "Copy or download the model again.")
    dtype = dtypes.most_common(1)[0][0]
    if dtype not in TRAINABLE:
        raise ModelError(
            f"The weights in {folder} are {dtype}, so they cannot be trained.", "Take the original weights."
        )
    rows = next((tensor.shape[0] for tensor in weights if tensor.name.endswith(EMBEDDINGS) and tensor.shape), None)
    return ModelFacts(
        architecture=_architecture(config),
        model_type=config["model_type"],
        parameters=sum(tensor.size for tensor in weights),
        dtype=dtype,
        vocab_size=_count(config, "vocab_size"),
        embedding_rows=rows,
        tokenizer_size=_tokenizer_size(folder),
        max_positions=next((count for key in POSITIONS if (count := _count(config, key)) is not None), None),
        sliding_window=_count(config, "sliding_window") if config.get("use_sliding_window", True) else None,
        has_chat_template=_has_chat_template(folder),
        tied=bool(config.get("tie_word_embeddings", False)),
        bytes=sum(file.stat().st_size for file in files),
    )


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and value > 0 else None


def _tokenizer_size(folder: Path) -> int | None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        if not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json", "vocab.txt")):
            raise ModelError(f"The folder {folder} holds no tokenizer (tokenizer.json).", "Save it beside the model.")
        return None
    content = _read_json(path, "")
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list):
        raise ModelError(f"{path} holds no vocabulary.", "Save the tokenizer again.")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    ids += [token.get("id") for token in content.get("added_tokens") or [] if isinstance(token, dict)]
    return 1 + max((number for number in ids if type(number) is int), default=-1)


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_read_json(path, "").get("chat_template"))


def _check_vocabulary(folder: Path, facts: ModelFacts) -> None:
    if facts.embedding_rows is not None and facts.vocab_size is not None and facts.embedding_rows != facts.vocab_size:
        raise ModelError(
            f"The model in {folder} does not fit its config.json: the embedding has {facts.embedding_rows:,} rows,"
            f" vocab_size is {facts.vocab_size:,}.",
            "Copy or download both again.",
        )
    rows = facts.embedding_rows or facts.vocab_size
    if facts.tokenizer_size is not None and rows is not None and facts.tokenizer_size > rows:
        raise ModelError(
            f"The tokenizer in {folder} has {facts.tokenizer_size:,} tokens, but the model's embedding only {rows:,} rows.",
            "Use the tokenizer that the model was trained with, or resize the model's embedding and save it.",
        )


def check_same_tokenizer(model: Path, reference: Path) -> None:
    """Raise ModelError where a reference model's tokenizer gives other ids than the model's own.

    Chat templates may differ: the model's own is used. So may what is written around a whole text (the
    post-processor), since the template writes all of a chat.
    """
    ours, theirs = (_deciding_parts(folder) for folder in (model, reference))
    differ = [name for name in ours if ours[name] != theirs[name]]
    if differ:
        raise ModelError(
            f"The tokenizers of the model ({model}) and of the reference model ({reference}) give other token ids: "
            f"their {' and '.join(differ)} differ.",
            "Take a reference model that comes from the same base, such as the model that this one was trained from.",
            field="reference_model",
        )


def _deciding_parts(folder: Path) -> dict[str, Any]:
    """What decides a tokenizer's ids, by its name in a sentence; as this version of the library would write it."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"The folder {folder} has no tokenizer.json, so its tokenizer cannot be compared with another.",
            "Save the tokenizer again with transformers' save_pretrained.",
            field="reference_model",
        )
    try:
        content = orjson.loads(Tokenizer.from_file(str(path)).to_str())
    except Exception as error:  # noqa: BLE001 (the library raises nothing more exact)
        raise ModelError(f"{path} cannot be read: {error}.", "Copy or download the file again.") from None
    return {
        "vocabularies": content["model"],
        "added tokens": [{k: v for k, v in token.items() if k != "special"} for token in content["added_tokens"]],
        "normalizers": content["normalizer"],
        "rules of splitting": content["pre_tokenizer"],
    }


@dataclass(frozen=True)
class Shape:
    """A fresh model in Qwen2's shape, its embeddings tied."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int  # of the tokenizer that is trained for it; fewer where the data holds too little
    max_positions: int  # tokens
    initializer_range: float

    def config(self) -> dict[str, Any]:
        """These settings under their names in config.json."""
        return {
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.max_positions,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": True,
        }


NEW_SHAPES: dict[str, Shape] = {
    "micro": Shape(32, 2, 2, 1, 64, 512, 512, 0.08),
    "tiny": Shape(128, 3, 4, 4, 320, 1024, 512, 0.06),
    "small": Shape(256, 6, 4, 2, 704, 4096, 1024, 0.04),
    "medium": Shape(512, 8, 8, 4, 1408, 8192, 2048, 0.02),
}
"""What `new:<shape>` makes: 0.03, 0.7, 5.5 and 28 million parameters. Small widths want a wider initial spread."""


def find_shape(name: str, max_length: int) -> Shape:
    """The shape of a `new:` model that is to read examples so long. Raises InputError."""
    if name not in NEW_SHAPES:
        raise InputError(f"There is no shape “{name}”.", f"Choose one of: {', '.join(NEW_SHAPES)}.", field="model")
    check_length(max_length, NEW_SHAPES[name].max_positions)
    return NEW_SHAPES[name]


def estimate_parameters(config: Mapping[str, Any]) -> int:
    """Parameters of a decoder in Llama's or Qwen2's shape, from its config.json. Raises KeyError."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    attention = 2 * hidden * queries + 2 * hidden * keys
    if config.get("model_type") == "qwen2" or config.get("attention_bias"):
        attention += queries + 2 * keys
    block = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return embeddings + layers * block + hidden
