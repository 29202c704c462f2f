"""`hf:` references through a whole attempt: the real trainer, a small local Hub, and what the row and the page tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.db import Database
from app.models import Run
from app.runs import service, states
from app.settings import Settings
from tests.minihub import MiniHub
from tests.worker.helpers import claim, events, launch, row, shipped_exactly_once, until
from worker.devices import CPU
from worker.launcher import Attempt

CONFIG: dict[str, Any] = {
    "max_steps": 1, "batch_size": 4, "max_length": 64, "sample_count": 0, "eval_fraction": 0, "precision": "fp32",
}  # fmt: skip
CHATS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": str(n)}]}
    for n in range(12)
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"beat_seconds": 0.05, "lease_seconds": 30.0, "threads": 1})


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.small import make_model

    return make_model(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniHub]:
    """A Hub with one model and one data set, which trainers find by their environment; and an empty cache."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in CHATS))
    with MiniHub() as hub:
        hub.add("model", "me/tiny", model)
        hub.add("dataset", "me/chats", data)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield hub


@pytest.fixture
def train(database: Database, settings: Settings) -> Callable[..., Run]:
    """Launch a run, or take an earlier one again, and see one attempt through with the real trainer."""

    def do(run_id: int | None = None, settings: Settings = settings, **config: Any) -> Run:
        if run_id is None:
            run_id = launch(database, settings, **(CONFIG | config))
        else:
            with database.write() as session:
                service.resume(session, run_id)
        run = claim(database)
        assert run is not None and run.id == run_id
        Attempt(database, settings, run, CPU).run()
        return row(database, run_id)

    return do


HF = {"model": "hf:me/tiny", "dataset": "hf:me/chats"}


@pytest.mark.long
def test_a_model_and_a_data_set_are_found_pinned_and_then_had_offline(
    hub: MiniHub, train: Callable[..., Run], database: Database, settings: Settings
) -> None:
    found = train(**HF)
    assert found.state == states.FINISHED, found.error
    assert found.id is not None and shipped_exactly_once(database, settings, found.id)
    told = {
        body["path"]: body["facts"] for body in bodies(database, found.id, "artifact") if body["path"] in HF.values()
    }
    for kind, name in (("model", "me/tiny"), ("dataset", "me/chats")):
        assert told[f"hf:{name}"]["revision"] == hub.repos[kind, name].refs["main"]
    tasks = {body["task"]: body for body in bodies(database, found.id, "progress")}
    assert tasks["downloading model.safetensors"]["done"] == tasks["downloading model.safetensors"]["total"]

    hub.requests.clear()
    again = train(**HF, name="again", settings=settings.model_copy(update={"offline": True}))
    assert again.state == states.FINISHED, again.error
    assert hub.requests == []


@pytest.mark.long
def test_a_download_that_broke_off_is_on_the_row_and_goes_on_where_it_was(
    hub: MiniHub, train: Callable[..., Run], database: Database, settings: Settings, model: Path
) -> None:
    size = (model / "model.safetensors").stat().st_size
    hub.drop("model.safetensors", 100_000, *[1000] * 30)  # each break-off is taken up after half a second
    run_id = launch(database, settings, **(CONFIG | HF))
    run = claim(database)
    assert run is not None
    work = Attempt(database, settings, run, CPU)
    work._prepare()
    work._start()
    assert work.process is not None

    def seen() -> bool:
        work.turn(time.monotonic())
        progress = row(database, run_id).progress or {}
        return progress.get("task") == "downloading model.safetensors" and progress["done"] >= 100_000

    until(seen, 60)
    progress = row(database, run_id).progress
    assert progress is not None and progress["done"] < progress["total"] == size and progress["unit"] == "bytes"
    work.kill()
    work.end()
    assert row(database, run_id).state == states.QUEUED  # its trainer died: it is tried again
    hub.drops.clear()
    hub.requests.clear()
    run = claim(database)
    assert run is not None and run.attempt == 2
    Attempt(database, settings, run, CPU).run()
    assert row(database, run_id).state == states.FINISHED
    [request] = hub.downloads("model.safetensors")
    assert request.range is not None and int(request.range.removeprefix("bytes=").removesuffix("-")) >= 100_000


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a model that is not there": ({"model": "hf:me/nothing"}, "The Hub has no model me/nothing, or it is private", "Check the name"),
    "a revision that is not there": ({"model": "hf:me/tiny@v9"}, "has no revision “v9”", "listed at"),
    "a gated model": ({"model": "hf:me/gated"}, "The model me/gated is gated", "Accept its licence"),
    "offline, not in the cache": ({"offline": True}, "is not in the local cache", "Unset HF_HUB_OFFLINE"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("what", REFUSALS)
def test_what_the_hub_refuses_ends_the_run_with_what_to_do(
    what: str, hub: MiniHub, train: Callable[..., Run], settings: Settings, tmp_path: Path, model: Path
) -> None:
    if what == "a gated model":
        hub.add("model", "me/gated", model)
        hub.repos["model", "me/gated"].gated = True
    changes, message, hint = REFUSALS[what]
    changes = dict(changes)
    here = settings.model_copy(update={"offline": changes.pop("offline", False)})
    found = train(**{**HF, **changes}, settings=here)
    assert found.state == states.FAILED and found.attempt == 1
    assert found.error is not None and message in found.error["message"] and hint in found.error["hint"]
    assert not list((tmp_path / "hf").rglob("*.safetensors")) or "tiny" in changes.get("model", "tiny")


def bodies(database: Database, run_id: int, kind: str) -> list[dict[str, Any]]:
    return [orjson.loads(event.body) for event in events(database, run_id, kind)]
