"""Judging: answers that models gave to the same prompts are scored one by one, or compared two by two.

    a reward model   one score an answer: a sequence classifier, or Nemotron's form, here or behind an endpoint
    the checker      1 or 0: the prompt's own reference decides
    a judge of pairs a chat model behind an endpoint says which of two answers is better, in both orders

What it does: keeps each result at once, so that a kill repeats only what was in flight (and counts what was paid for
twice); judges a share of the prompts a second time, to measure the judge's own noise; counts and tells what it could
not judge. It leaves outputs/scores.jsonl or outputs/verdicts.jsonl.
What it does not: statistics (app/winrates), people's votes (app/review), an average over several judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from training.config import JudgeConfig
from training.errors import DataError, InputError, Stopped
from training.files import disk_errors, sha256_of
from training.journal import Journal
from training.judging.answers import Answers, judged_twice, read_answers
from training.judging.judge import Judge, Judged
from training.judging.opening import open_judge
from training.rundir import RunDir, RunFile, write_atomically
from training.throttle import Throttle
from training.words import were
from training.worklog import WorkLog

JUDGE = "judge"  # the log's first work: which judge the results are of
SAMPLES = 5  # works that the run's page shows
SECONDS = 5.0  # between two points of the charts


def run(config: JudgeConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Judge, and leave rows of scores or verdicts. Raises TrainingError, or Stopped: what is judged is kept."""
    # 1. The answers, and which prompts are judged twice.
    journal.status("reading answers")
    given = Path(run.responses) if run.responses else run_dir.given_responses
    answers = read_answers(given)
    noise = 0.0 if config.way == "checker" else config.repeat_fraction  # it says the same each time
    twice = judged_twice(answers, noise, config.seed)

    # 2. The judge.
    judge = open_judge(config, run, run_dir, answers, twice, journal, config.baseline)
    if stop():  # not before: until here a signal ends the process, also in the midst of a download
        raise Stopped
    _introduce(config, answers, twice, journal)

    # 3. What is not judged yet, each result kept as it comes.
    with WorkLog(run_dir.work) as log:
        _check_same(log, judge, given)
        judged = _judge_all(judge, log, journal, stop)

    # 4. What it comes to, for the statistics.
    for level, sentence in judged.words:
        journal.log(sentence, level)
    if not len(judged):
        why = " ".join(sentence for level, sentence in judged.words if level == "warning")
        raise DataError(f"Nothing could be judged. {why}".rstrip(), "See the run's log, and take another judge.")
    with disk_errors("the outputs"):
        _write(run_dir.scores, judged.scores)
        _write(run_dir.verdicts, judged.verdicts)


def _introduce(config: JudgeConfig, answers: Answers, twice: Collection[str], journal: Journal) -> None:
    count, models = sum(1 for _ in answers.each()), ", ".join(answers.models)
    again = f", those to {len(twice):,} of them twice" if twice else ""
    journal.log(
        f"{config.judge_name} judges {count:,} answers of {len(answers.models):,} models ({models}) "
        f"to {len(answers.questions):,} prompts{again}."
    )


def _check_same(log: WorkLog, judge: Judge, given: Path) -> None:
    """Results of two judges, or on other answers, are never mixed. Raises InputError."""
    identity = {**judge.identity, "answers": sha256_of(given)}
    before = log.done.get(JUDGE)
    if before is None:
        log.finish({JUDGE: identity})
    elif before != identity:
        changed = ", ".join(key for key in identity if before.get(key) != identity[key])
        raise InputError(
            f"Since this run began to judge, what it judges with has changed ({changed}).",
            "Retry the run: it begins from nothing. What was judged before would not fit the rest.",
        )


def _judge_all(judge: Judge, log: WorkLog, journal: Journal, stop: Callable[[], bool]) -> Judged:
    """Do what is not done yet, and tell how it goes. Raises TrainingError, Stopped."""
    keys = judge.works()
    left = [key for key in keys if key not in log.done]
    done = len(keys) - len(left)
    _tell_interrupted(judge, log, left, journal)
    journal.status("judging")
    journal.progress("judging", done, len(keys), f"{judge.noun}s")
    bar, charts = Throttle(), Throttle(SECONDS)
    for results in judge.do(left, log.begin, stop):
        log.finish(results)
        for index, key in enumerate(results, done):
            if index < SAMPLES:
                shown = judge.show(key, results[key])
                journal.sample(done, index, shown.asked, shown.said, True)
        done += len(results)
        if bar.ready() or done == len(keys):
            journal.progress("judging", done, len(keys), f"{judge.noun}s")
        if charts.ready() and done < len(keys):
            _measure(judge, keys, log, done, journal)
    return _measure(judge, keys, log, done, journal)


def _measure(judge: Judge, keys: Sequence[str], log: WorkLog, done: int, journal: Journal) -> Judged:
    judged = judge.conclude({key: log.done[key] for key in keys if key in log.done})
    journal.metrics(done, **judged.values, repeated=log.repeated)
    return judged


def _tell_interrupted(judge: Judge, log: WorkLog, left: Sequence[str], journal: Journal) -> None:
    again = sum(key in log.interrupted for key in left)
    if again:
        paid = ", and may be paid for twice" if judge.costs else ""
        journal.log(
            f"{were(again, judge.noun)} under way when the run was interrupted, and made again{paid}.", "warning"
        )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of what this judge gives; the other kind's file is not there."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    if rows:
        write_atomically(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
