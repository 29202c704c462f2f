"""The demo: its data, and the whole of it."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from app.datasets import queries
from app.datasets import service as datasets
from app.demo import data
from app.demo.data import KIND_OF, OPPOSITE
from app.experiments import service, spec

ROOT = Path(__file__).resolve().parents[2]


def test_the_tasks_are_the_same_every_time_and_no_prompt_comes_twice():
    tasks = list(data.tasks())
    assert tasks == list(data.tasks()) and tasks[:5] != list(data.tasks(5, seed=1))
    assert len({task.prompt for task in tasks}) == len(tasks) == data.COUNT
    assert min(Counter(task.family for task in tasks).values()) > 200


def words(text):
    return re.findall(r"[a-z]+", text)


@pytest.mark.parametrize("task", list(data.tasks(300)), ids=lambda task: task.prompt)
def test_every_answer_is_right(task):
    """Each answer, worked out again from the question's words."""
    listed = words(task.prompt.partition(": ")[2])
    if task.family == "sum":
        a, b = map(int, re.findall(r"\d+", task.prompt))
        assert task.answer == f"{a} plus {b} is {a + b}."
    elif task.family == "count":
        assert task.answer == f"There are {len(listed)} words."
    elif task.family == "sort":
        assert words(task.answer)[-len(listed) :] == sorted(listed)
    elif task.family == "reverse":
        assert words(task.answer)[-len(listed) :] == listed[::-1]
    elif task.family == "opposite":
        word, other = re.search(r"of (\w+) is (\w+)\.", task.answer).groups()
        assert word in words(task.prompt) and OPPOSITE[word] == other and OPPOSITE[other] == word
    elif task.family == "capitals":
        assert task.answer.split()[-1].strip(".").lower() in words(task.prompt)
    else:
        word, kind = re.search(r"(\w+) is a kind of (\w+)\.", task.answer).groups()
        assert KIND_OF[word.lower()] == kind and word.lower() in words(task.prompt)


def test_made_again_the_data_are_the_same_version_and_the_preset_takes_them(database, settings):
    for _ in range(2):
        data.ensure(database, settings)
    with database.write() as session:
        assert [(row.name, row.version, row.rows) for row in queries.all_versions(session)] == [("demo-chats", 1, 4000)]
        content = spec.load(data.PRESET)
        names = []
        for _ in range(2):
            name = service.free_experiment_name(session, content.name)
            names.append(service.launch(session, settings, content.model_copy(update={"name": name}))[0].name)
    assert names == ["demo", "demo-2"]


def test_a_new_home_gets_something_to_try_and_an_old_one_nothing(database, settings):
    data.ensure_in_new_home(database, settings)
    with database.write() as session:
        assert [row.name for row in queries.all_versions(session)] == [data.NAME]
        service.get_or_create(session, "mine")
    datasets.delete(database, settings, data.NAME, 1)
    data.ensure_in_new_home(database, settings)
    with database.read() as session:
        assert queries.all_versions(session) == []


def test_the_preset_launches_from_the_page_of_a_home_that_has_no_data(browser):
    answer = browser.post("/api/v1/experiments", json={"preset": "demo"})
    assert answer.status_code == 201 and answer.json()["runs"][0]["state"] == "queued"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_trains_tells_what_was_learned_and_ends_well(tmp_path):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFLAB_")}
    variables["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "app.cli"]
    done = subprocess.run(
        [*command, "demo", "--exit"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.search(r"Eval loss ([\d.]+) at the start, ([\d.]+) at the end", done.stdout).groups())
    assert first > 5 and last < 0.5
    assert done.stdout.count("(right)") >= 3
    assert re.search(r"http://127.0.0.1:\d+/login\?token=\S{50,}", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == [".preflab-demo"]
    variables["PREFLAB_HOME"] = str(tmp_path / ".preflab-demo")
    listing = [*command, "runs", "list", "--json"]
    (row,) = json.loads(subprocess.run(listing, env=variables, capture_output=True, check=True).stdout)["rows"]
    assert (row["state"], row["experiment"]) == ("finished", "demo")
