"""The model that writes prompts and answers them: here or behind an endpoint, as a respond run would ask it.

Several answers to one prompt are rounds: each asks all prompts once, with numbers of its own to draw tokens by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from training.answering import Answerer, EndpointAnswerer, ModelAnswerer
from training.augmenting.works import Works
from training.augmenting.writing import clean
from training.config import AskingConfig, AugmentConfig, RespondConfig
from training.data.encoding import plain_backend
from training.data.examples import SetPrompt
from training.endpoint import Endpoint
from training.errors import InputError
from training.finding import find_endpoint, find_folder
from training.model_files import inspect_model
from training.preparation import model_identity
from training.references import parse_reference
from training.rundir import RunDir, RunFile

Round = Mapping[str, SetPrompt]  # what is asked, by the key of the work


class TextModel(ModelAnswerer):
    """A model here that may go on with a text, too. `goes_on`: a prompt's content is such a text, and no chat."""

    goes_on = False

    def _encode(self, prompt: SetPrompt) -> list[int]:
        if not self.goes_on:
            return super()._encode(prompt)
        text = prompt.messages[-1]["content"]
        found: list[int] = plain_backend(self.tokenizer).encode(text, add_special_tokens=False).ids
        return found


class Writer:
    """The run's `model`. It is loaded when it is first needed, and given back by `close`."""

    def __init__(self, config: AugmentConfig, run: RunFile, run_dir: RunDir, works: Works, goes_on: bool) -> None:
        """`goes_on`: new prompts are written by going on with a text. Raises TrainingError."""
        self._config, self._works, self._goes_on = config, works, goes_on
        self._endpoint: tuple[Endpoint, str] | None = None
        self._model: TextModel | None = None
        self._loaded = False
        settings, found = self._settings(config.max_new_tokens, config.seed), run.inputs.get(config.model)
        if parse_reference(config.model).kind == "api":
            if goes_on:
                raise InputError(
                    f"{config.model} answers chats, and the writing instructions are a text to go on with ({{new_prompt}}).",
                    "Write them as a request, without {new_prompt}, or take a model that runs here.",
                    field="writing",
                )
            self._endpoint = find_endpoint(config.model, "model", run, config, works.journal)
        else:
            folder = find_folder(config.model, "model", run, run_dir, works.journal)
            identity = model_identity(folder, found)
            self._model = TextModel(folder, inspect_model(folder), found, identity, settings, works.journal)
        self.facts = dict(self._answerer(settings, False).facts)

    @property
    def costs(self) -> bool:
        return self._endpoint is not None

    def write(self, phase: str, rounds: Sequence[Round], most: int, noun: str) -> list[str]:
        """Ask all rounds, each result kept as it comes. Returns the keys. Raises TrainingError, Stopped.

        `most`: tokens of an answer.
        """
        works, goes_on = self._works, self._goes_on and phase == WRITING
        keys = [key for each in rounds for key in each]
        left = frozenset(works.begin(phase, keys, noun, self.costs))
        for number, asked in enumerate(rounds, 1):
            missing = [key for key in asked if key in left]
            if not missing:
                continue
            answerer = self._answerer(self._settings(most, _seed(self._config.seed, phase, number)), goes_on)
            if not self._loaded:
                answerer.open()
                self._loaded = True
                works.journal.status(phase)
            for results in answerer.do(asked, missing, works.log.begin, works.stop, lambda ended: None):
                made = {key: {**each, "response": clean(each["response"])} for key, each in results.items()}
                works.keep(phase, made, keys, noun)
        return keys

    def close(self) -> None:
        """Make room for the judge."""
        if self._model is not None and self._loaded:
            self._model.close()
        self._loaded = False

    def _answerer(self, settings: RespondConfig, goes_on: bool) -> Answerer:
        if self._endpoint is not None:
            return EndpointAnswerer(*self._endpoint, settings)
        assert self._model is not None
        self._model.config, self._model.goes_on = settings, goes_on
        return self._model

    def _settings(self, most: int, seed: int) -> RespondConfig:
        shared = {
            name: getattr(self._config, name) for name in AskingConfig.model_fields if name not in {"stage", "seed"}
        }
        drawn = {"temperature": self._config.temperature, "top_p": self._config.top_p, "seed": seed}
        return RespondConfig(**shared, **drawn, model=self._config.model, max_new_tokens=most)


WRITING = "writing"


def _seed(seed: int, phase: str, number: int) -> int:
    """One of its own for each round."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {phase} {number}".encode(), digest_size=8).digest()) % 2**31
