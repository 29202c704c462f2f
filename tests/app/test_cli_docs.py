"""docs/cli.md shows what the commands print: every example is run, and its keys are compared."""

import json
import re
import shlex
import time
from pathlib import Path

import orjson
import pytest
import typer
from sqlalchemy import update

from app.cli import cli
from app.experiments import service as experiments
from app.experiments import spec
from app.models import Event, Run, Verdict, Worker
from app.runs import service as runs
from app.runs import states
from app.settings import load_settings
from app.winrates.intake import take_scores
from app.winrates.rows import ScoreRow
from tests.app.command import preflab
from tests.worker.synthetic import CONFIG, leave
from training.config import parse_config
from training.rundir import RunDir
from worker.devices import describe, find

DOCS = Path(__file__).resolve().parents[2] / "docs/cli.md"
EXAMPLES = re.findall(r"```sh\npreflab ([^\n]+)\n```\n```json\n(.+?)```", DOCS.read_text(), re.DOTALL)
CHATS = "".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": "Answer."}]}
    )
    + "\n"
    for n in range(3)
)
SOME_KEYS = {"config", "sft"}  # examples show a few of these keys only
OWN_KEYS = {"metrics", "values", "roles", "noise"}  # these keys are the run's or the data's own
MODELS = ("instruct", "sft", "dpo")
ANSWERS = "".join(
    json.dumps({"prompt_id": f"q{n}", "prompt": "Why?", "model": model, "response": "So.", "ended": True}) + "\n"
    for n in range(4)
    for model in MODELS
)
VERDICTS = "".join(
    json.dumps(
        {"prompt_id": f"q{n}", "model_a": model, "model_b": "instruct", "judge": judge, "preference": (n + k) % 2}
    )
    + "\n"
    for judge in ("llm:judge", "human:anna")
    for n in range(4)
    for k, model in enumerate(MODELS[1:])
)


def measured(session):
    """Run 1 as if a worker had trained it for 200 steps."""
    run = session.get(Run, 1)
    run.summary = {
        "loss": {"last": 0.49, "step": 200, "min": 0.47, "max": 7.0},
        "eval_loss": {"last": 0.5, "step": 200, "min": 0.5, "max": 7.0},
    }
    for number, (step, values) in enumerate(
        ((200, {"loss": 0.49}), (200, {"eval_loss": 0.5}), (300, {"loss": 0.8})), 2
    ):
        body = orjson.dumps(values).decode()
        session.add(Event(run_id=1, number=number, attempt=1, time=1.5, kind="metrics", step=step, body=body))
    run.last_event = 4


def before(command, database):
    """What must have happened before an example can be run."""
    with database.write() as session:
        if command.startswith("runs list"):
            measured(session)
        if command.startswith("workers"):
            devices = describe(find("cpu"))
            session.add(Worker(name="w", host="h", pid=1, started_at=0.0, seen_at=time.time(), devices=devices))
        if command.startswith("runs retry"):
            states.move(session, 1, states.I)
        if command.startswith("export scores"):
            rows = [ScoreRow("q0", "dpo", "reward:rm", 0.25)]
            take_scores(session, experiments.by_name(session, "arena").id, "imported", rows)
        if command.startswith("datasets refilter"):
            owner = experiments.get_or_create(session, "synthesis")
            augment = runs.launch(session, owner, runs.NewRun("augment", parse_config(CONFIG)))
            leave(RunDir(load_settings().run_folder(augment.id)), parse_config(augment.config))
        if command.startswith("winrate"):
            judge = parse_config({"stage": "judge", "judge": "api:local/judge"})
            run = runs.launch(session, experiments.by_name(session, "arena"), runs.NewRun("judge", judge))
            run.state, run.summary = states.FINISHED, {key: {"last": 0.08} for key in ("judged", "order_disagreement")}
            session.execute(update(Verdict).where(Verdict.judge == "llm:judge").values(run_id=run.id))


def compare(example, real, path=""):
    assert type(example) is type(real) or not isinstance(example, (dict, list)), path
    if isinstance(example, list):
        assert bool(example) == bool(real), path
        for one in real[: len(example)]:
            compare(example[0], one, f"{path}[]")
    elif isinstance(example, dict):
        name = path.rpartition(".")[2]
        if name in SOME_KEYS:
            assert example.keys() <= real.keys(), path
        else:
            assert list(example) == list(real) or (name in OWN_KEYS and set(example) == set(real)), path
        for key in example:
            compare(example[key], real[key], f"{path}.{key}")


def test_every_example_has_the_keys_of_the_real_thing(tmp_path, monkeypatch, database):
    monkeypatch.chdir(tmp_path)
    Path("chats.jsonl").write_text(CHATS)
    Path("experiment.yaml").write_text(
        "name: first-try\nruns: {sft: {stage: sft, model: new:tiny, dataset: data:chats}}\n"
    )
    Path("answers.jsonl").write_text(ANSWERS)
    Path("verdicts.jsonl").write_text(VERDICTS)
    assert len(EXAMPLES) > 30
    for command, shown in EXAMPLES:
        before(command, database)
        done = preflab(*shlex.split(command))
        assert done.code == 0, f"{command}: {done.err}"
        example = json.loads(shown)
        if command.startswith("doctor"):
            done.json["rows"][:] = done.json["rows"][:1]
        compare(example, done.json, command)


def test_every_command_that_takes_json_is_in_the_docs():
    shown = {tuple(word for word in command.split() if word[0] != "-") for command, _ in EXAMPLES}
    for path, command in commands(typer.main.get_command(cli)):
        if any("--json" in option.opts for option in command.params):
            assert any(example[: len(path)] == path for example in shown), f"preflab {' '.join(path)}"


def commands(group, path=()):
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_says_what_it_does():
    for path, command in commands(typer.main.get_command(cli)):
        assert command.help, path
        assert preflab(*path, "--help").code == 0


@pytest.mark.parametrize("name", spec.presets())
def test_a_preset_that_is_shown_can_be_launched_as_a_file(name, tmp_path, monkeypatch, database):
    from app.demo import data

    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(preflab("presets", "show", name).out)
    assert preflab("launch", name).code == 0  # makes the demo's data too
    assert data.NAME in preflab("datasets", "list").out
    done = preflab("launch", "mine.yaml", "--name", "mine", "--json")
    assert done.json["experiment"]["name"] == "mine"
