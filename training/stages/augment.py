"""Synthetic data augmentation: preference pairs that nobody wrote, from prompts that a model made up.

    of the data's prompts a share is drawn -> new prompts are written from each -> each is answered several times
    -> a judge scores the answers -> the best against the worst is a pair -> filters, each with its threshold

(Lee et al. 2024, with a writer that may be the model that is to be trained.)

What it does: takes what is held out from the data first, and drops what a writer makes of it again; keeps every prompt,
answer and score as it comes, so that a kill repeats only what was in flight; keeps every answer with its measures and
the reason why it was dropped, so that a threshold can be moved later and nothing is made again.
What it does not: chats of several turns (a new prompt is one question); several writers or judges.

It leaves outputs/pairs.jsonl, remaining.jsonl, candidates.jsonl and funnel.json (training/rundir.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import orjson

from training.augmenting.candidates import as_lines, candidate_rows
from training.augmenting.comparing import compared, with_answers_compared
from training.augmenting.embedding import Embeddings
from training.augmenting.funnel import Candidate, NewPrompt, Sifted, Thresholds, is_hopeless, pair_row, sift
from training.augmenting.judged import judge
from training.augmenting.measures import repetition, same_script
from training.augmenting.source import Data, asked, read_data, write_remaining
from training.augmenting.tally import funnel, in_words, nothing_left
from training.augmenting.works import Works, about_answers, work_key
from training.augmenting.writer import WRITING, Writer
from training.augmenting.writing import Writing, own_writing, read_writing
from training.commits import Commits
from training.config import AugmentConfig
from training.data.examples import Message, SetPrompt
from training.data.normal import digest
from training.embed import open_embedder
from training.errors import InputError, Stopped
from training.failpoints import failpoint
from training.files import disk_errors
from training.journal import Journal
from training.rundir import RunDir, RunFile, write_atomically
from training.worklog import WorkLog

SHOWN = 5  # kept pairs that the run's page shows


def run(config: AugmentConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Make pairs, and leave them behind. Raises TrainingError, or Stopped: what is made is kept."""
    # 1. The data, without what is held out; the prompts that are drawn of it.
    writing = _writing(config, run)
    embedder = open_embedder(run.embedder, journal, Commits(run_dir.commits))
    data = read_data(config, run, run_dir, journal)
    if stop():
        raise Stopped

    embeddings = Embeddings(embedder, run_dir.cache / "embeddings", journal, stop)
    with WorkLog(run_dir.work) as log:
        works = Works(log, journal, stop)
        writer = Writer(config, run, run_dir, works, writing.goes_on)
        works.same("writer", {**writer.facts, "writing": writing.sha256, "drawn": _hash(data)}, "what writes")

        # 2. New prompts, and how near they are to what is held out, to the data, and to each other.
        prompts = _new_prompts(config, data, writing, writer, works)
        prompts = compared(prompts, data, embeddings, run, run_dir, journal)

        # 3. Answers to each that a threshold could keep.
        prompts = _answered(config, prompts, writer, works)
        writer.close()

        # 4. Their scores, and how alike the best and the worst are.
        references = (
            {_id(each): each.reference for each in data.chosen if each.reference} if not config.new_prompts else {}
        )
        prompts = judge(config, prompts, references, works, run, run_dir, journal)
        prompts = with_answers_compared(prompts, embeddings)

        # 5. What of it becomes pairs.
        thresholds = Thresholds.of(config)
        sifted = sift(prompts, thresholds)
        _write(config, sifted, thresholds, data, run_dir, journal)
        _tell(sifted, thresholds, works, journal)


def _writing(config: AugmentConfig, run: RunFile) -> Writing:
    if config.writing is None:
        return own_writing()
    found = run.inputs.get(config.writing)
    if found is None or found.path is None:
        raise InputError(f"{config.writing} was not found.", "Check the path.", field="writing")
    return read_writing(Path(found.path))


def _new_prompts(config: AugmentConfig, data: Data, writing: Writing, writer: Writer, works: Works) -> list[NewPrompt]:
    """What was written from each drawn prompt, in the order of the draw; the drawn ones where nothing is to be written."""
    if not config.new_prompts:
        return [NewPrompt(_id(each), each.messages) for each in data.chosen]
    numbers = range(1, config.new_prompts + 1)
    rounds = [{work_key("write", _id(each), n): _request(writing, each) for each in data.chosen} for n in numbers]
    keys = writer.write(WRITING, rounds, max(1, config.max_new_tokens // 2), "prompts")
    found = []
    for each in data.chosen:
        for n in numbers:
            said = works.log.done[work_key("write", _id(each), n)]
            text, ended = writing.read(said["response"], said["ended"])
            messages = writing.new_prompt(each.messages, text)
            found.append(NewPrompt(f"{_id(each)}.{n}", messages, each.prompt_id, ended=ended))
    works.end(WRITING, keys, "prompts", written=float(sum(bool(each.text) for each in found)))
    return found


def _request(writing: Writing, prompt: SetPrompt) -> SetPrompt:
    return SetPrompt(prompt.prompt_id, [Message(role="user", content=writing.ask(prompt.messages))])


def _answered(config: AugmentConfig, prompts: Sequence[NewPrompt], writer: Writer, works: Works) -> list[NewPrompt]:
    """The prompts with their candidates; without any where no threshold could save the prompt."""
    phase, numbers = "answering", range(1, config.candidates + 1)
    asked_for = [each for each in prompts if not is_hopeless(each)]
    rounds = [
        {work_key("answer", each.prompt_id, n): SetPrompt(each.prompt_id, each.messages) for each in asked_for}
        for n in numbers
    ]
    keys = writer.write(phase, rounds, config.max_new_tokens, "answers")
    answers = [works.log.done[key] for key in keys]
    works.end(phase, keys, "answers", answered=float(len(answers)), **about_answers(answers))
    found = []
    for each in prompts:
        said = [works.log.done.get(work_key("answer", each.prompt_id, n)) for n in numbers]
        candidates = tuple(_candidate(each, answer) for answer in said if answer is not None)
        found.append(replace(each, candidates=candidates))
    return found


def _candidate(prompt: NewPrompt, answer: dict[str, object]) -> Candidate:
    text, tokens = str(answer["response"]), answer["tokens"]
    return Candidate(
        text, bool(answer["ended"]), tokens if isinstance(tokens, int) else None,
        repetition=round(repetition(text), 6), same_script=same_script(asked(prompt.messages), text),
    )  # fmt: skip


def _write(
    config: AugmentConfig,
    sifted: Sequence[Sifted],
    thresholds: Thresholds,
    data: Data,
    run_dir: RunDir,
    journal: Journal,
) -> None:
    """The outputs, the pairs last. Raises DataError where there are none: the others then say why."""
    journal.status("writing the pairs")
    run_dir.outputs.mkdir(mode=0o700, exist_ok=True)
    counts = funnel(sifted, thresholds, config.judge_name)
    failpoint("before_outputs")
    with disk_errors("the pairs"):
        write_atomically(run_dir.candidates, as_lines(candidate_rows(sifted)))
        write_atomically(run_dir.funnel, orjson.dumps(counts, option=orjson.OPT_INDENT_2) + b"\n")
        failpoint("between_outputs")
        kept = [pair_row(each) for each in sifted if each.reason is None]
        if not kept:
            raise nothing_left(sifted, thresholds)
        remaining = write_remaining(data, run_dir.remaining, run_dir, journal)
        write_atomically(run_dir.pairs, as_lines(kept))
    journal.artifact("pairs", "outputs/pairs.jsonl", rows=len(kept))
    journal.artifact("remaining rows", "outputs/remaining.jsonl", rows=remaining)


def _tell(sifted: Sequence[Sifted], thresholds: Thresholds, works: Works, journal: Journal) -> None:
    """The funnel in the log, some of the pairs, and the last point of the charts."""
    for sentence in in_words(sifted, thresholds):
        journal.log(sentence)
    kept = [each for each in sifted if each.reason is None]
    for index, each in enumerate(kept[:SHOWN]):
        row = pair_row(each)
        told = f"Chosen ({row['score_chosen']:.3g}): {row['chosen']}\n\nRejected ({row['score_rejected']:.3g}): {row['rejected']}"
        journal.sample(works.done, index, asked(each.prompt.messages), told, True)
    works.measure(kept=float(len(kept)), mean_margin=fmean(each.margin or 0.0 for each in kept))
    journal.status("finished", pairs=len(kept))


def _id(prompt: SetPrompt) -> str:
    """A name by its content: data sets that are joined may call two prompts the same."""
    return digest(prompt.messages).hex()[:16]


def _hash(data: Data) -> str:
    """Of the drawn prompts, to the letter."""
    return hashlib.sha256(orjson.dumps([[each.prompt_id, each.messages] for each in data.chosen])).hexdigest()
