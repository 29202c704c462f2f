"""Answering: models answer the prompts of a set, each once, for judges and people to compare.

What it does: greedy or sampled answers of a model, of several checkpoints of a run, or of a model behind an endpoint;
keeps every answer as it comes, so that a kill repeats only what was in flight; takes answers that an earlier run made
in the same way. It leaves outputs/responses.jsonl.
What it does not: judge them; several answers to a prompt; several GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
import torch

from training.answer_cache import AnswerCache, prompt_key
from training.answering import Answerer, EndpointAnswerer, ModelAnswerer
from training.commits import Commits
from training.config import RespondConfig
from training.data.prompt_sets import SetPrompt, load_prompts
from training.device import choose_device
from training.endpoint import Endpoint
from training.errors import InputError, Stopped
from training.failpoints import failpoint
from training.files import disk_errors, sha256_of
from training.hub import fetch_model
from training.journal import Journal
from training.model_files import inspect_model
from training.opening import open_model
from training.preparation import model_identity
from training.references import parse_reference
from training.rundir import RunDir, RunFile, write_atomically
from training.throttle import Throttle
from training.tokenizer import load_tokenizer
from training.worklog import WorkLog

SHOWN = 3  # answers of each model that the run's page shows
SECONDS = 5.0  # between two points of the charts


def run(config: RespondConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Answer, and leave the answers behind. Raises TrainingError, or Stopped: what is answered is kept."""
    # 1. The prompts.
    journal.status("reading prompts")
    prompts = load_prompts(config.prompts, run, run_dir, journal)
    answerers = config.answerers()
    journal.log(f"{len(prompts):,} prompts of {config.prompts}, for {', '.join(answerers)}.")
    if stop():
        raise Stopped

    # 2. Model after model, what is not answered yet; each answer is kept as it comes.
    shared = Path(run.shared) if run.shared else run_dir.cache
    with WorkLog(run_dir.work) as log:
        work = _Work(config, prompts, list(answerers), log, journal, stop)
        work.tell_interrupted()
        for name, text in answerers.items():
            if work.left(name):
                _answer(name, _open(config, text, run, run_dir, journal), work, shared)
        values = work.measure()

    # 3. The answers, for the judges.
    _write(config, prompts, list(answerers), log.done, run_dir)
    journal.log(
        f"{values['answered']:,.0f} answers, {values['answer_length']:.0f} tokens long on average; "
        f"{values['answers_ended']:.0%} ended by themselves, {values['answers_empty']:.0%} are empty."
    )


class _Work:
    """What is to be answered, and what is done of it."""

    def __init__(
        self, config: RespondConfig, prompts: Sequence[SetPrompt], names: Sequence[str], log: WorkLog,
        journal: Journal, stop: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.prompts, self.names, self.log, self.journal, self.stop = prompts, names, log, journal, stop
        self._total = len(names) * len(prompts)
        self._bar, self._charts = Throttle(), Throttle(SECONDS)
        self._began, self._tokens = time.monotonic(), 0
        self.cached = 0

    def keys(self, name: str) -> dict[str, SetPrompt]:
        """The prompts by the key of their answer."""
        return {work_key(name, prompt.prompt_id): prompt for prompt in self.prompts}

    def left(self, name: str) -> list[str]:
        return [key for key in self.keys(name) if key not in self.log.done]

    def tell_interrupted(self) -> None:
        again = sum(key in self.log.interrupted for name in self.names for key in self.left(name))
        if again:
            self.journal.log(
                f"{again:,} answers were under way when the run was interrupted: they are made again.", "warning"
            )

    def keep(self, answers: Mapping[str, Mapping[str, Any]], *, made: bool = True) -> None:
        """Keep answers, and tell how far it is."""
        failpoint("before_answers_kept")
        self.log.finish(answers)
        failpoint("after_answers_kept")
        if made:
            self._tokens += sum(each["tokens"] or 0 for each in answers.values())
        else:
            self.cached += len(answers)
        if self._bar.ready() or len(self.log.done) >= self._total:
            self.journal.progress("answering", len(self.log.done), self._total, "answers")
        if self._charts.ready() and len(self.log.done) < self._total:
            self.measure()

    def show(self, name: str) -> None:
        """The first answers of a model, for the run's page."""
        first = list(self.keys(name).items())[:SHOWN]
        for index, (key, prompt) in enumerate(first, SHOWN * list(self.names).index(name)):
            asked = "\n\n".join(message["content"] for message in prompt.messages)
            answer = self.log.done[key]
            self.journal.sample(len(self.log.done), index, asked, answer["response"], bool(answer["ended"]))

    def measure(self) -> dict[str, float]:
        """What the answers so far are like."""
        answers = [self.log.done[key] for name in self.names for key in self.keys(name) if key in self.log.done]
        lengths = [each["tokens"] for each in answers if each["tokens"] is not None]
        values = {
            "answered": float(len(answers)),
            "answer_length": fmean(lengths) if lengths else 0.0,
            "answers_ended": fmean(each["ended"] for each in answers) if answers else 0.0,
            "answers_empty": fmean(not each["response"].strip() for each in answers) if answers else 0.0,
            "tokens_per_second": self._tokens / max(1e-9, time.monotonic() - self._began),
            "cached": float(self.cached),
            "repeated": float(self.log.repeated),
        }
        self.journal.metrics(len(answers), **values)
        return values


def work_key(name: str, prompt_id: str) -> str:
    """The key of a model's answer to a prompt, whatever they hold."""
    return orjson.dumps([name, prompt_id]).decode()


def _answer(name: str, answerer: Answerer, work: _Work, shared: Path) -> None:
    """Let a model answer what is left: first what an earlier run of it answered, then the rest, which is kept for others."""
    cache, prompts = AnswerCache(shared, answerer.facts), work.keys(name)
    plan = _plan(name, answerer, cache, work)
    here = {
        key: plan[prompt_key(prompt.messages)] for key, prompt in prompts.items() if prompt_key(prompt.messages) in plan
    }
    taken = {key: here[key] for key in work.left(name) if key in here}
    if taken:
        work.journal.log(f"{len(taken):,} answers of {name} are taken from an earlier run.")
        work.keep(taken, made=False)
    work.journal.status(f"{name} answers")
    rest = {key: prompt for key, prompt in prompts.items() if key not in here}
    for answers in answerer.do(rest, work.left(name), work.log.begin, work.stop):
        work.keep({key: answer for key, answer in answers.items() if key not in work.log.done})
    with disk_errors("the answers for other runs"):
        cache.add({prompt_key(prompt.messages): work.log.done[key] for key, prompt in rest.items()})
    work.show(name)


def _plan(name: str, answerer: Answerer, cache: AnswerCache, work: _Work) -> dict[str, Any]:
    """The answers of earlier runs, as the first attempt found them: what the batches are cut from stays the same.

    Raises InputError where the model, or how it answers, has changed since this run began.
    """
    key = work_key("", name)
    known = work.log.done.get(key)
    if known is None:
        asked = {prompt_key(prompt.messages) for prompt in work.prompts}
        known = {"facts": answerer.facts, "cached": {k: v for k, v in cache.read().items() if k in asked}}
        work.log.finish({key: known})
    elif known["facts"] != answerer.facts:
        raise InputError(
            f"Since this run began to answer, {name} has changed.",
            "Retry the run: it begins from nothing. What was answered before would not fit the rest.",
            field="model",
        )
    found: dict[str, Any] = known["cached"]
    return found


def _open(config: RespondConfig, text: str, run: RunFile, run_dir: RunDir, journal: Journal) -> Answerer:
    """A model, loaded, or its endpoint. Raises TrainingError."""
    reference, found = parse_reference(text), run.inputs.get(text)
    drawn = {"top_p": config.top_p, "seed": config.seed} if config.temperature else {}
    facts: dict[str, Any] = {"most": config.max_new_tokens, "temperature": config.temperature, **drawn}
    if reference.kind == "api":
        if found is None or found.url is None:
            raise InputError(
                f"The settings name no endpoint for {text}.", "PREFLAB_ENDPOINTS names them.", field="model"
            )
        endpoint = Endpoint(reference, found.url, config, journal)
        return EndpointAnswerer(endpoint, config, {**facts, "url": found.url, "model": reference.name})
    if reference.kind == "hf":
        folder = fetch_model(reference, journal, Commits(run_dir.commits))
    elif found is None or found.path is None:
        raise InputError(f"{text} was not found.", "Check the name, or choose another model.", field="model")
    else:
        folder = Path(found.path)
    about = inspect_model(folder)
    journal.status("loading the model")
    tokenizer = load_tokenizer(folder)
    loaded = open_model(folder, tokenizer, found, config.seed)
    device = choose_device(config.precision, loaded.parameters)
    model: Any = loaded.model
    model.to(device=device.torch, dtype=torch.bfloat16 if device.half else torch.float32).eval()
    journal.log(f"{loaded.parameters:,} parameters, on {device.describe()}.")
    facts |= {
        "model": model_identity(folder, found), "tokenizer": sha256_of(folder / "tokenizer.json"),
        "template": tokenizer.chat_template, "device": device.torch.type, "half": device.half,
        "rows": config.micro_batch_size,
    }  # fmt: skip
    return ModelAnswerer(model, tokenizer, device, about.max_positions, config, facts, journal)


def _write(
    config: RespondConfig, prompts: Sequence[SetPrompt], names: Sequence[str], done: Mapping[str, Any], run_dir: RunDir
) -> None:
    """The data file of responses: prompts in the set's order, models in theirs."""
    lines = []
    for prompt in prompts:
        for name in names:
            row: dict[str, Any] = {"prompt_id": prompt.prompt_id, "model": name, "prompt": prompt.messages}
            row |= {key: value for key in ("category", "reference") if (value := getattr(prompt, key)) is not None}
            row |= {key: value for key, value in done[work_key(name, prompt.prompt_id)].items() if value is not None}
            if (step := name.rpartition("@")[2]).isdigit() and config.checkpoints:
                row["checkpoint"] = int(step)
            lines.append(orjson.dumps(row) + b"\n")
    with disk_errors("the answers"):
        run_dir.outputs.mkdir(mode=0o700, exist_ok=True)
        write_atomically(run_dir.responses, b"".join(lines))
