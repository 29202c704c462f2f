"""Models and data sets from a Hub: a small local one, over real HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants, file_download

from tests.minihub import MiniHub
from tests.training.small import EXACT, make_model, make_run, metrics, train
from tests.training.test_model_files import write_model
from training.commits import Commits
from training.errors import DataError, DiskFull, HubError, ModelError
from training.hub import fetch_dataset, fetch_model
from training.journal import Journal, Record, read_lines
from training.references import parse_reference

CHATS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": str(n)}]}
    for n in range(30)
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniHub]:
    """A local Hub, and an empty cache."""
    with MiniHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setattr("training.hub_cache.WAITS", (0.01, 0.01))
        yield hub


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", 1)


def records(tmp_path: Path, kind: str) -> list[Record]:
    return [
        line
        for line in read_lines(tmp_path / "journal.jsonl", 0).lines
        if isinstance(line, Record) and line.kind == kind
    ]


def write_rows(folder: Path, name: str = "train.jsonl", rows: list[dict] | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows or CHATS))
    return folder


def test_a_model_is_found_and_pinned_to_its_commit(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "model" / "modeling_own.py").write_text("raise SystemExit")
    commit = hub.add("model", "me/tiny", tmp_path / "model")
    folder = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    names = {path.name for path in folder.iterdir()}
    assert "model.safetensors" in names and "tokenizer.json" in names
    assert not names & {"pytorch_model.bin", "modeling_own.py"}
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    [artifact] = records(tmp_path, "artifact")
    assert artifact.body["path"] == "hf:me/tiny" and artifact.body["facts"]["revision"] == commit


def test_a_tag_is_another_commit_than_main(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", rows=64)
    first = hub.add("model", "me/tiny", tmp_path / "one", revision="v1")
    second = hub.add("model", "me/tiny", tmp_path / "two")
    assert fetch_model(parse_reference("hf:me/tiny@v1"), journal, Commits()).name == first
    assert fetch_model(parse_reference("hf:me/tiny"), journal, Commits()).name == second
    assert fetch_model(parse_reference(f"hf:me/tiny@{first}"), journal, Commits()).name == first


def test_what_a_branch_meant_at_first_it_means_for_the_whole_run(
    hub: MiniHub, journal: Journal, tmp_path: Path
) -> None:
    kept = tmp_path / "commits.json"
    write_model(tmp_path / "model")
    first = hub.add("model", "me/tiny", tmp_path / "model")
    data = write_rows(write_rows(tmp_path / "data"), "test.jsonl", CHATS[:3])
    of_data = hub.add("dataset", "me/tiny", data)
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits(kept))
    assert list(fetch_dataset(parse_reference("hf:me/tiny"), journal, Commits(kept))) == CHATS
    assert orjson.loads(kept.read_bytes()) == {"model": {"hf:me/tiny": first}, "dataset": {"hf:me/tiny": of_data}}

    write_model(tmp_path / "model", rows=64)
    second = hub.add("model", "me/tiny", tmp_path / "model")
    write_rows(write_rows(data, rows=CHATS[:5]), "test.jsonl", CHATS[:1])
    hub.add("dataset", "me/tiny", data)
    assert fetch_model(parse_reference("hf:me/tiny"), journal, Commits(kept)).name == first
    assert list(fetch_dataset(parse_reference("hf:me/tiny"), journal, Commits(kept))) == CHATS
    other_split = parse_reference("hf:me/tiny?split=test")
    assert list(fetch_dataset(other_split, journal, Commits(kept))) == CHATS[:3], "of the same commit"
    kept.unlink()
    assert fetch_model(parse_reference("hf:me/tiny"), journal, Commits(kept)).name == second


def test_a_commit_that_is_gone_from_the_hub_is_said(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    kept = tmp_path / "commits.json"
    write_model(tmp_path / "model")
    first = hub.add("model", "me/tiny", tmp_path / "model")
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits(kept))
    hub.add("model", "me/tiny", tmp_path / "model")
    del hub.repos["model", "me/tiny"].commits[first]
    with pytest.raises(HubError, match=f"hf:me/tiny has no commit {first[:12]} any more, which this run began with"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits(kept))


def test_a_run_goes_on_with_the_model_and_the_data_that_it_began_with(
    hub: MiniHub, small_model: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data")
    hub.add("model", "me/tiny", small_model)
    hub.add("dataset", "me/chats", data)
    settings: dict[str, Any] = {"dataset": ["hf:me/chats"], "lora_rank": 2, "save_every": 3}
    whole_dir, whole = make_run(tmp_path / "whole", "hf:me/tiny", data, **settings)
    train(whole_dir, whole)
    run_dir, run = make_run(tmp_path / "run", "hf:me/tiny", data, **settings)
    assert train(run_dir, run, stop_after=6)
    hub.add("model", "me/tiny", make_model(tmp_path / "other", seed=7))
    hub.add("dataset", "me/chats", write_rows(data, rows=CHATS[5:]))
    shutil.rmtree(run_dir.cache)
    assert not train(run_dir, run)
    assert metrics(run_dir, *EXACT) == metrics(whole_dir, *EXACT)


def test_what_is_in_the_cache_is_not_downloaded_again(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    assert len(hub.downloads("model.safetensors")) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.drop("model.safetensors", 1000, 500)
    folder = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    asked = [request.range for request in hub.downloads("model.safetensors")]
    assert asked == [None, "bytes=1000-", "bytes=1500-"]
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


def test_a_download_given_up_goes_on_at_the_next_attempt(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.drop("model.safetensors", 2000, 0, 0)
    with pytest.raises(HubError, match=r"broke off after 2,000 of [\d,]+ bytes") as caught:
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    assert "goes on from there" in caught.value.failure.hint
    hub.requests.clear()
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    assert [request.range for request in hub.downloads("model.safetensors")] == ["bytes=2000-"]


def has_a_part_of(blobs: Path, size: int) -> bool:
    for part in blobs.glob("*.incomplete"):
        with contextlib.suppress(FileNotFoundError):  # another file, which is whole by now
            if part.stat().st_size == size:
                return True
    return False


def test_a_killed_download_goes_on_where_it_was(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.stall("model.safetensors", 4321)
    code = (
        "import sys; from pathlib import Path; from training.hub import fetch_model\n"
        "from training.journal import Journal; from training.commits import Commits; from training.references import parse_reference\n"
        "fetch_model(parse_reference('hf:me/tiny'), Journal(Path(sys.argv[1]), 1), Commits())"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "child.jsonl")], env=environment)
    blobs = Path(constants.HF_HUB_CACHE) / "models--me--tiny" / "blobs"
    while not has_a_part_of(blobs, 4321):
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    hub.stalls["model.safetensors"][1].set()
    hub.requests.clear()
    folder = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    assert [request.range for request in hub.downloads("model.safetensors")] == ["bytes=4321-"]
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not list(blobs.glob("*.incomplete"))


def test_progress_counts_bytes_up_to_the_whole(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.drop("model.safetensors", 1000)
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    told = [line.body for line in records(tmp_path, "progress") if line.body["task"] == "downloading model.safetensors"]
    assert told[-1]["done"] == told[-1]["total"] == size and told[-1]["unit"] == "bytes"


def test_bytes_that_arrive_damaged_are_not_kept(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.spoil = lambda path, content: content[:-1] + b"?" if path.endswith(".safetensors") else content
    with pytest.raises(HubError, match=r"model.safetensors arrived damaged"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    hub.spoil = lambda path, content: content
    fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def test_a_missing_repository_is_named(hub: MiniHub, journal: Journal) -> None:
    with pytest.raises(HubError, match="The Hub has no model me/nothing, or it is private") as caught:
        fetch_model(parse_reference("hf:me/nothing"), journal, Commits())
    assert "HF_TOKEN" in caught.value.failure.hint and "hf auth login" in caught.value.failure.hint


def test_a_missing_revision_is_named(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    with pytest.raises(HubError, match="no revision “v9”"):
        fetch_model(parse_reference("hf:me/tiny@v9"), journal, Commits())


def test_a_gated_model_says_where_to_accept_its_licence(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/gated", tmp_path / "model")
    hub.repos["model", "me/gated"].gated = True
    hub.repos["model", "me/gated"].token = "hf_right"
    with pytest.raises(HubError, match="model me/gated is gated") as caught:
        fetch_model(parse_reference("hf:me/gated"), journal, Commits())
    assert f"{hub.url}/me/gated" in caught.value.failure.hint and "HF_TOKEN" in caught.value.failure.hint


def test_a_token_opens_a_private_model(
    hub: MiniHub, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/private", tmp_path / "model")
    hub.repos["model", "me/private"].token = "hf_right"
    with pytest.raises(HubError, match="or it is private"):
        fetch_model(parse_reference("hf:me/private"), journal, Commits())
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (fetch_model(parse_reference("hf:me/private"), journal, Commits()) / "config.json").is_file()


@pytest.mark.parametrize(("status", "words"), [(401, "refuses"), (403, "refuses"), (429, "too many requests")])
def test_a_refused_file_says_why(hub: MiniHub, journal: Journal, tmp_path: Path, status: int, words: str) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.fail("model.safetensors", status)
    with pytest.raises(HubError, match=words):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def test_a_server_error_that_passes_is_waited_out(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    hub.fail("model.safetensors", 500, 503)
    assert (fetch_model(parse_reference("hf:me/tiny"), journal, Commits()) / "model.safetensors").is_file()


def test_a_hub_that_cannot_be_reached_says_so(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MiniHub() as gone:
        url = gone.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubError, match=f"The Hub at {url} cannot be reached"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def test_offline_the_cache_is_used(
    hub: MiniHub, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    online = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch_model(parse_reference("hf:me/tiny"), journal, Commits()) == online
    assert not hub.requests


def test_offline_what_the_cache_lacks_is_named(
    hub: MiniHub, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    folder = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="me/other is not in the local cache, and HF_HUB_OFFLINE is set"):
        fetch_model(parse_reference("hf:me/other"), journal, Commits())
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match=r"model.safetensors is not in the local cache, and HF_HUB_OFFLINE is set"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def test_a_hub_that_went_away_leaves_the_cache_usable(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    online = fetch_model(parse_reference("hf:me/tiny"), journal, Commits())
    hub.__exit__()
    assert fetch_model(parse_reference("hf:me/tiny"), journal, Commits()) == online


def test_pickle_weights_alone_are_refused_before_they_are_fetched(
    hub: MiniHub, journal: Journal, tmp_path: Path
) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    hub.add("model", "me/pickle", tmp_path / "model")
    with pytest.raises(ModelError, match="only pickle weights"):
        fetch_model(parse_reference("hf:me/pickle"), journal, Commits())
    assert not hub.downloads("pytorch_model.bin")


def test_custom_code_is_refused_before_the_weights_are_fetched(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_model(tmp_path / "model", auto_map={"AutoModelForCausalLM": "own.Own"})
    hub.add("model", "me/code", tmp_path / "model")
    with pytest.raises(ModelError, match="code of its own"):
        fetch_model(parse_reference("hf:me/code"), journal, Commits())
    assert not hub.downloads("model.safetensors")


def test_a_full_disk_is_named(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    fetch_config_only(hub, journal)
    weights = hashlib_of(tmp_path / "model" / "model.safetensors")
    blobs = (
        Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id="me/tiny", repo_type="model") / "blobs"
    )
    (blobs / f"{weights}.preflab.incomplete").unlink(missing_ok=True)
    (blobs / f"{weights}.preflab.incomplete").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="The disk is full"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def fetch_config_only(hub: MiniHub, journal: Journal) -> None:
    hub.fail("model.safetensors", 404)
    with pytest.raises(HubError, match="no such file"):
        fetch_model(parse_reference("hf:me/tiny"), journal, Commits())


def hashlib_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_data_set_of_json_lines_gives_its_rows(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    commit = hub.add("dataset", "me/chats", write_rows(tmp_path / "data"))
    assert list(fetch_dataset(parse_reference("hf:me/chats"), journal, Commits())) == CHATS
    [artifact] = records(tmp_path, "artifact")
    assert artifact.body["facts"]["revision"] == commit and artifact.body["facts"]["split"] == "train"


def test_a_data_set_of_parquet_gives_its_rows(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "data" / "data").mkdir(parents=True)
    for part in range(2):
        table = pyarrow.Table.from_pylist(CHATS[part * 15 : part * 15 + 15])
        pyarrow.parquet.write_table(table, tmp_path / "data" / "data" / f"train-0000{part}-of-00002.parquet")
    hub.add("dataset", "me/chats", tmp_path / "data")
    assert list(fetch_dataset(parse_reference("hf:me/chats"), journal, Commits())) == CHATS


def test_only_the_files_of_the_split_are_downloaded(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_rows(tmp_path / "data", "train.jsonl")
    write_rows(tmp_path / "data", "test.jsonl", CHATS[:3])
    hub.add("dataset", "me/chats", tmp_path / "data")
    assert list(fetch_dataset(parse_reference("hf:me/chats?split=test"), journal, Commits())) == CHATS[:3]
    assert hub.downloads("test.jsonl") and not hub.downloads("train.jsonl")


def test_a_config_of_the_card_names_the_files(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    card = {"short": "a.jsonl", "long": "b.jsonl"}
    lines = ["---", "configs:"]
    for name, file in card.items():
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: train_prefs\n    path: {file}"]
    write_rows(tmp_path / "data", "a.jsonl", CHATS[:2])
    write_rows(tmp_path / "data", "b.jsonl")
    (tmp_path / "data" / "README.md").write_text("\n".join([*lines, "---", "# Chats"]))
    hub.add("dataset", "me/chats", tmp_path / "data")
    reference = parse_reference("hf:me/chats?config=short&split=train_prefs")
    assert list(fetch_dataset(reference, journal, Commits())) == CHATS[:2]
    assert not hub.downloads("b.jsonl")
    with pytest.raises(DataError, match="short"):
        fetch_dataset(parse_reference("hf:me/chats"), journal, Commits())


def test_a_missing_split_says_which_there_are(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    hub.add("dataset", "me/chats", write_rows(tmp_path / "data"))
    with pytest.raises(DataError, match="has the splits train, but no “nothing”"):
        fetch_dataset(parse_reference("hf:me/chats?split=nothing"), journal, Commits())


def test_a_data_set_that_is_a_script_is_refused(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_rows(tmp_path / "data")
    (tmp_path / "data" / "chats.py").write_text("raise SystemExit('code was run')")
    hub.add("dataset", "me/chats", tmp_path / "data")
    with pytest.raises(DataError, match=r"made by a script \(chats.py\)") as caught:
        fetch_dataset(parse_reference("hf:me/chats"), journal, Commits())
    assert "refs/convert/parquet" in caught.value.failure.hint


def test_a_converted_branch_is_read_instead_of_the_script(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    hub.add("dataset", "me/chats", write_rows(tmp_path / "data"), revision="refs/convert/parquet")
    assert len(list(fetch_dataset(parse_reference("hf:me/chats@refs/convert/parquet"), journal, Commits()))) == 30


def test_a_data_set_without_data_files_is_refused(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.pdf").write_bytes(b"%PDF")
    hub.add("dataset", "me/empty", tmp_path / "data")
    with pytest.raises(DataError, match=r"cannot be read as rows, such as notes.pdf"):
        fetch_dataset(parse_reference("hf:me/empty"), journal, Commits())
    assert not hub.downloads("notes.pdf")
    (tmp_path / "data" / "notes.pdf").rename(tmp_path / "data" / "notes")
    hub.add("dataset", "me/empty", tmp_path / "data")
    with pytest.raises(DataError, match="no data files were found"):
        fetch_dataset(parse_reference("hf:me/empty"), journal, Commits())


def test_a_broken_row_of_a_data_set_ends_in_a_sentence(hub: MiniHub, journal: Journal, tmp_path: Path) -> None:
    write_rows(tmp_path / "data")
    with (tmp_path / "data" / "train.jsonl").open("a") as file:
        file.write('{"messages": [\n')
    hub.add("dataset", "me/chats", tmp_path / "data")
    with pytest.raises(DataError, match="hf:me/chats cannot be read"):
        list(fetch_dataset(parse_reference("hf:me/chats"), journal, Commits()))


def test_offline_a_data_set_comes_from_the_cache(
    hub: MiniHub, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("dataset", "me/chats", write_rows(tmp_path / "data"))
    list(fetch_dataset(parse_reference("hf:me/chats"), journal, Commits()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert list(fetch_dataset(parse_reference("hf:me/chats"), journal, Commits())) == CHATS


def test_the_library_itself_can_read_the_small_hub(hub: MiniHub, tmp_path: Path) -> None:
    """The small Hub is a Hub: huggingface_hub's own download of a snapshot works against it."""
    from huggingface_hub import snapshot_download

    write_model(tmp_path / "model")
    hub.add("model", "me/tiny", tmp_path / "model")
    folder = Path(snapshot_download("me/tiny", cache_dir=tmp_path / "other"))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2"
