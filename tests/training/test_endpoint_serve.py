"""The client against a server that is not ours: `transformers serve`, with a small random chat model on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import free_port
from tests.training.judging.given import given, judge_run, question
from tests.training.small import logs, make_model, train
from training.config import JudgeConfig
from training.endpoint import Endpoint, Request
from training.errors import DataError, EndpointError
from training.references import parse_reference
from training.tokenizer import load_tokenizer

ASKED = [{"role": "user", "content": "What is one plus two?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the folder of the model that it serves as “small”."""
    place = tmp_path_factory.mktemp("serve")
    folder = make_model(place / "small", tie_word_embeddings=True)
    port = free_port()
    command = [
        sys.executable, "-c", "from transformers.cli.transformers import main; main()",
        "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32", "small",
    ]  # fmt: skip
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(place / "home"),
        "OMP_NUM_THREADS": "1",
    }
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, env={**os.environ, **quiet}, stdout=log, stderr=log)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, place / "log")
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.kill()
        process.wait()


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx2.get(address, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def endpoint(url: str, model: str = "small", **settings: Any) -> Endpoint:
    return Endpoint(
        parse_reference(f"api:local/{model}"), url, JudgeConfig(judge=f"api:local/{model}", **settings), None
    )


def greedy(folder: Path, most: int) -> tuple[str, int]:
    """transformers' own answer, and how many tokens it has."""
    tokenizer, model = load_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.generate(**ids, max_new_tokens=most, do_sample=False)
    words = output[0, ids["input_ids"].shape[1] :]
    return tokenizer.decode(words, skip_special_tokens=True), len(words)


def test_an_answer_is_that_of_the_model_and_is_known_to_be_cut(served: tuple[str, Path]) -> None:
    url, folder = served
    reply = endpoint(url).chat(ASKED, max_tokens=6, temperature=0.0)
    assert (reply.text, reply.tokens) == greedy(folder, 6)
    assert not reply.ended


def test_many_requests_are_all_answered(served: tuple[str, Path]) -> None:
    url, _ = served
    requests = [Request(f"{n}", [{"role": "user", "content": "one " * n}], {"max_tokens": 3}) for n in range(1, 9)]
    found = dict(endpoint(url, concurrency=3).ask(requests))
    assert sorted(found) == sorted(each.key for each in requests)
    assert {reply.tokens for reply in found.values()} <= {0, 1, 2, 3}


def test_another_model_than_it_serves_is_refused_in_its_own_words(served: tuple[str, Path]) -> None:
    with pytest.raises(EndpointError, match=r"it answered 400 .*pinned to 'small'.* It was asked once\."):
        endpoint(served[0], "other").chat(ASKED)


def test_a_judge_that_only_babbles_is_asked_and_its_words_are_shown(served: tuple[str, Path], tmp_path: Path) -> None:
    """A random model gives no verdict: what it said is counted, and the run says so."""
    own = tmp_path / "short.txt"
    own.write_text("{prompt} {answer_1} {answer_2}")
    inputs = {"api:local/small": served[0], f"path:{own}": str(own)}
    answers = given(question("p", {"a": "one", "b": "two"}))
    run_dir, run = judge_run(tmp_path / "run", answers, inputs, judge="api:local/small", instructions=f"path:{own}")
    with pytest.raises(DataError, match="2 requests were answered without a verdict"):
        train(run_dir, run)
    assert "llm:small judges 2 answers of 2 models" in logs(run_dir)
