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

from training.answer_cache import AnswerCache, digest, prompt_key
from training.answering import Answerer, EndpointAnswerer, ModelAnswerer
from training.config import RespondConfig
from training.data.prompt_sets import SetPrompt, load_prompts
from training.errors import InputError, Stopped
from training.failpoints import failpoint
from training.files import disk_errors
from training.finding import find_endpoint, find_folder
from training.journal import Journal
from training.model_files import inspect_model
from training.preparation import model_identity
from training.references import parse_reference
from training.rundir import RunDir, RunFile, write_atomically
from training.throttle import Throttle
from training.words import were
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
        work = _Work(prompts, list(answerers), log, journal, stop)
        work.tell_interrupted()
        for name, text in answerers.items():
            if work.left(name):
                _answer(name, _find(config, text, run, run_dir, journal), work, shared, config.reuse)
            journal.log(work.told(name))
        work.measure()

    # 3. The answers, for the judges.
    _write(config, prompts, list(answerers), log.done, run_dir)
    journal.artifact("responses", "outputs/responses.jsonl", rows=len(prompts) * len(answerers))
    journal.status("finished")


class _Work:
    """What is to be answered, and what is done of it."""

    def __init__(
        self,
        prompts: Sequence[SetPrompt],
        names: Sequence[str],
        log: WorkLog,
        journal: Journal,
        stop: Callable[[], bool],
    ) -> None:
        self.prompts, self.names, self.log, self.journal, self.stop = prompts, names, log, journal, stop
        self._total = len(names) * len(prompts)
        self._done = sum(len(self.answers(name)) for name in names)
        self._shown = {name: min(SHOWN, len(self.answers(name))) for name in names}
        self._bar, self._charts = Throttle(), Throttle(SECONDS)
        self._tokens, self._seconds, self._mark = 0, 0.0, time.monotonic()

    def keys(self, name: str) -> dict[str, SetPrompt]:
        """The prompts by the key of their answer."""
        return {work_key(name, prompt.prompt_id): prompt for prompt in self.prompts}

    def answers(self, name: str) -> dict[str, dict[str, Any]]:
        """What a model has answered so far."""
        return {key: self.log.done[key] for key in self.keys(name) if key in self.log.done}

    def left(self, name: str) -> list[str]:
        return [key for key in self.keys(name) if key not in self.log.done]

    def tell_interrupted(self) -> None:
        again = sum(key in self.log.interrupted for name in self.names for key in self.left(name))
        if again:
            self.journal.log(
                f"{were(again, 'answer')} under way when the run was interrupted: they are made again.", "warning"
            )

    def begin(self) -> None:
        """From now on a model answers: its speed is measured."""
        self._mark = time.monotonic()

    def go_on(self, ended: int) -> None:
        """So many answers of those that are being made have ended: called again and again, between two tokens."""
        if self._bar.ready():
            self.journal.progress("answering", self._done + ended, self._total, "answers")

    def keep(
        self, name: str, answers: Mapping[str, Mapping[str, Any]], beside: Mapping[str, Any] | None = None
    ) -> None:
        """Keep answers, and tell how far it is. `beside`: what else is kept, all or none of it."""
        failpoint("before_answers_kept")
        self.log.finish({**(beside or {}), **answers})
        failpoint("after_answers_kept")
        now = time.monotonic()
        if made := [each for each in answers.values() if "cached" not in each]:
            self._tokens += sum(each["tokens"] or 0 for each in made)
            self._seconds += now - self._mark
        self._mark = now
        self._done += len(answers)
        self._show(name, answers)
        if self._bar.ready() or self._done == self._total:
            self.journal.progress("answering", self._done, self._total, "answers")
        if self._charts.ready() and self._done < self._total:
            self.measure()

    def _show(self, name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """The first answers of each model, for the run's page."""
        if self._shown[name] >= SHOWN:
            return
        prompts = self.keys(name)
        for key, answer in list(answers.items())[: SHOWN - self._shown[name]]:
            index = SHOWN * list(self.names).index(name) + self._shown[name]
            asked = "\n\n".join(message["content"] for message in prompts[key].messages)
            self.journal.sample(self._done, index, asked, answer["response"], bool(answer["ended"]))
            self._shown[name] += 1

    def measure(self) -> None:
        """What the answers so far are like, for the charts."""
        answers = [each for name in self.names for each in self.answers(name).values()]
        speed = {"tokens_per_second": self._tokens / self._seconds} if self._tokens else {}
        values = {**_like(answers), **speed, "repeated": self.log.repeated}
        self.journal.metrics(self._done, **values)

    def told(self, name: str) -> str:
        """What a model's answers are like, in a sentence."""
        answers = list(self.answers(name).values())
        values = _like(answers)
        length = f", {values['answer_length']:.0f} tokens long on average" if "answer_length" in values else ""
        return (
            f"{name}: {len(answers):,} answers{length}; {values['answers_ended']:.1%} ended by themselves, "
            f"{values['answers_empty']:.1%} are empty, {values['cached']:,.0f} come from earlier runs."
        )


def _like(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over answers; nothing where there are none."""
    if not answers:
        return {}
    lengths = [each["tokens"] for each in answers if each["tokens"] is not None]
    return {
        **({"answer_length": fmean(lengths)} if lengths else {}),
        "answers_ended": fmean(each["ended"] for each in answers),
        "answers_empty": fmean(not each["response"].strip() for each in answers),
        "cached": sum("cached" in each for each in answers),
    }


def work_key(name: str, prompt_id: str) -> str:
    """The key of a model's answer to a prompt, whatever they hold."""
    return orjson.dumps([name, prompt_id]).decode()


def _answer(name: str, answerer: Answerer, work: _Work, shared: Path, reuse: bool) -> None:
    """Let a model answer what is left: first what an earlier run of it answered, then the rest, which is kept for others."""
    cache = AnswerCache(shared, {**answerer.facts, **answerer.where})
    fits = _begin(name, answerer, cache.read() if reuse else {}, work)
    # Batches are cut from what no earlier run had answered, the same in each attempt.
    rest = {key: each for key, each in work.keys(name).items() if "cached" not in work.log.done.get(key, {})}
    if left := work.left(name):
        answerer.open()
        work.journal.status("answering")
        work.begin()
        for answers in answerer.do(rest, left, work.log.begin, work.stop, work.go_on):
            work.keep(name, {key: answer for key, answer in answers.items() if key not in work.log.done})
        answerer.close()
    if not fits:
        return
    try:
        cache.add({prompt_key(prompt.messages): work.log.done[key] for key, prompt in rest.items()})
    except OSError as error:  # it only saves work
        work.journal.log(f"The answers are not kept for other runs: {error.strerror}.", "warning")


def _begin(name: str, answerer: Answerer, earlier: Mapping[str, Any], work: _Work) -> bool:
    """Take what earlier runs answered, once. Returns whether all that is kept was answered in the same place.

    Raises InputError where the model, the prompts, or how it answers have changed since this run began.
    """
    key = work_key("", name)
    facts = {**answerer.facts, "prompts": digest([[each.prompt_id, each.messages] for each in work.prompts])}
    known = work.log.done.get(key)
    if known is None:
        asked = {each: prompt_key(prompt.messages) for each, prompt in work.keys(name).items()}
        taken = {each: {**earlier[asked[each]], "cached": True} for each in work.left(name) if asked[each] in earlier}
        work.keep(name, taken, {key: {"facts": facts, "where": answerer.where}})
        return True
    if known["facts"] != facts:
        changed = ", ".join(each for each in facts if known["facts"].get(each) != facts[each])
        raise InputError(
            f"Since this run began to answer, what {name} answers with has changed ({changed}).",
            "Retry the run: it begins from nothing. What was answered before would not fit the rest.",
            field="model",
        )
    if known["where"] != answerer.where:
        work.journal.log(
            f"Some answers of {name} were made on another kind of device, or in other precision.", "warning"
        )
        work.log.finish({key: {**known, "where": None}})  # nor do they fit where a later attempt answers
    return bool(known["where"] == answerer.where)


def _find(config: RespondConfig, text: str, run: RunFile, run_dir: RunDir, journal: Journal) -> Answerer:
    """A model, found but not loaded, or its endpoint. Raises TrainingError."""
    if parse_reference(text).kind == "api":
        return EndpointAnswerer(*find_endpoint(text, "model", run, config, journal), config)
    folder, found = find_folder(text, "model", run, run_dir, journal), run.inputs.get(text)
    return ModelAnswerer(folder, inspect_model(folder), found, model_identity(folder, found), config, journal)


def _write(
    config: RespondConfig, prompts: Sequence[SetPrompt], names: Sequence[str], done: Mapping[str, Any], run_dir: RunDir
) -> None:
    """The data file of responses: prompts in the set's order, models in theirs."""
    lines = []
    for prompt in prompts:
        for name in names:
            row: dict[str, Any] = {"prompt_id": prompt.prompt_id, "model": name, "prompt": prompt.messages}
            row |= {key: value for key in ("category", "reference") if (value := getattr(prompt, key)) is not None}
            answer = done[work_key(name, prompt.prompt_id)]
            row |= {key: answer[key] for key in ("response", "ended", "tokens") if answer[key] is not None}
            if (step := name.rpartition("@")[2]).isdigit() and config.checkpoints:
                row["checkpoint"] = int(step)
            lines.append(orjson.dumps(row) + b"\n")
    with disk_errors("the answers"):
        run_dir.outputs.mkdir(mode=0o700, exist_ok=True)
        write_atomically(run_dir.responses, b"".join(lines))
