"""The judge stage as the worker starts it: judged, killed, gone on from, and what it leaves and tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.minihub import MiniHub
from tests.training.chat_server import Asked, Says, chat_server, says
from tests.training.judging.given import given, judge_run, question, read_rows, rows
from tests.training.judging.reward_models import make_reward_model
from tests.training.judging.test_pairwise import longer
from tests.training.small import logs, make_model, make_run, records, train, write_pairs
from training.errors import DataError, EndpointError, Exit, InputError, ModelError
from training.judging.answers import Answers
from training.rundir import RunDir
from training.words import were
from training.worklog import WorkLog

ROOT = Path(__file__).parents[2]
API = "api:local/judge"
ODD = ["It is two. ", "", "שלום\u202e", "<script>alert(1)</script>", "a\0b", "{prompt} {", "one " * 12]


def some_answers(count: int = 12, models: str = "ab") -> Answers:
    """Of all sorts, also such as break things. Each prompt has its number as its reference."""
    return given(
        *(
            question(f"p{n}", {model: f"{ODD[(n + k) % len(ODD)]}{n}{model}" for k, model in enumerate(models)}, str(n))
            for n in range(count)
        )
    )


def start(run_dir: RunDir, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", str(run_dir.root)],
        cwd=ROOT,
        env={**os.environ, "PREFLAB_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors.decode()


def measured(run_dir: RunDir) -> dict[str, float]:
    """The last value of each metric."""
    found: dict[str, float] = {}
    for record in records(run_dir, "metrics"):
        found |= record.body["values"]
    return found


# -- what each judge leaves ----------------------------------------------------------------------------------------


def test_the_checker_leaves_a_score_for_each_answer_in_the_order_of_the_answers(tmp_path: Path) -> None:
    answers = given(question("p1", {"a": "#### 5", "b": "six"}, "#### 5.0"), question("p2", {"b": "x"}))
    run_dir, run = judge_run(tmp_path / "run", answers, judge="checker", check="number", repeat_fraction=0.5)
    assert not train(run_dir, run)
    assert read_rows(run_dir.scores) == [
        {"prompt_id": "p1", "model": "a", "judge": "checker", "score": 1.0},
        {"prompt_id": "p1", "model": "b", "judge": "checker", "score": 0.0},
    ]
    assert not run_dir.verdicts.exists()
    assert measured(run_dir) == {"judged": 2, "score_mean": 0.5, "unparsable": 0, "repeated": 0}
    assert "checker judges 3 answers of 2 models (a, b) to 2 prompts." in logs(run_dir)
    assert "1 prompt was not checked" in logs(run_dir)
    assert [record.body["response"] for record in records(run_dir, "sample")] == ["a, right: #### 5", "b, wrong: six"]
    last = records(run_dir, "progress")[-1].body
    assert (last["task"], last["done"], last["total"], last["unit"]) == ("judging", 2, 2, "answers")


def test_a_reward_model_leaves_transformers_own_scores(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    answers = some_answers()
    run_dir, run = judge_run(
        tmp_path / "run", answers, {f"path:{folder}": str(folder)}, judge=f"path:{folder}", repeat_fraction=0.5
    )
    assert not train(run_dir, run)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for row in rows(answers):
        chat = [*row["prompt"], {"role": "assistant", "content": row["response"]}]
        with torch.no_grad():
            inputs = tokenizer.apply_chat_template(chat, tokenize=True, return_tensors="pt", return_dict=True)
            expected.append(model(**inputs).logits.item())
    found = read_rows(run_dir.scores)
    assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-5)
    assert [(row["prompt_id"], row["model"]) for row in found] == [(r["prompt_id"], r["model"]) for r in rows(answers)]
    assert {row["judge"] for row in found} == {"reward:judge"}
    values = measured(run_dir)
    assert values["judged"] == 24 and values["score_mean"] == pytest.approx(sum(expected) / 24, abs=1e-5)
    assert values["repeat_difference"] < 1e-5 and values["repeat_disagreement"] == 0.0
    assert "those to 6 of them twice" in logs(run_dir) and "12 answers were scored twice" in logs(run_dir)


@pytest.fixture(scope="module")
def our_reward(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What a reward run of ours leaves, its first checkpoint kept."""
    place = tmp_path_factory.mktemp("reward")
    model = make_model(place / "base")
    run_dir, run = make_run(
        place / "run", model, write_pairs(place / "pairs.jsonl"), stage="reward", max_steps=4, save_every=2,
        learning_rate=0.05,
    )  # fmt: skip
    assert not train(run_dir, run)
    return run_dir


def test_a_reward_run_of_ours_judges_where_it_was_trained_to_look(our_reward: RunDir, tmp_path: Path) -> None:
    """At the end of the turn, as its card says, not at the line break that the template writes behind it."""
    answers = some_answers(4)
    run_dir, run = judge_run(tmp_path / "run", answers, {"run:reward": str(our_reward.model)}, judge="run:reward")
    assert not train(run_dir, run)
    as_path, run2 = judge_run(
        tmp_path / "path",
        answers,
        {f"path:{our_reward.model}": str(our_reward.model)},
        judge=f"path:{our_reward.model}",
    )
    assert not train(as_path, run2)
    tokenizer = AutoTokenizer.from_pretrained(our_reward.model)
    model = AutoModelForSequenceClassification.from_pretrained(our_reward.model).eval()
    expected = []
    for row in rows(answers):
        chat = [*row["prompt"], {"role": "assistant", "content": row["response"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip()
        with torch.no_grad():
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            expected.append(model(**inputs).logits.item())
    assert [row["score"] for row in read_rows(run_dir.scores)] == pytest.approx(expected, abs=1e-5)
    assert [row["score"] for row in read_rows(as_path.scores)] == pytest.approx(expected, abs=1e-5)


def test_a_checkpoint_of_a_reward_run_judges_with_its_own_weights(our_reward: RunDir, tmp_path: Path) -> None:
    from training.rundir import ResolvedInput

    checkpoint = min(our_reward.checkpoints.glob("step-*"))
    text = f"run:reward?checkpoint={int(checkpoint.name.partition('-')[2])}"
    answers = some_answers(4)
    run_dir, run = judge_run(tmp_path / "run", answers, judge=text)
    found = ResolvedInput(reference=text, path=str(our_reward.model), weights=str(checkpoint))
    assert not train(run_dir, run.model_copy(update={"inputs": {text: found}}))
    other, run2 = judge_run(tmp_path / "other", answers, {"run:reward": str(our_reward.model)}, judge="run:reward")
    assert not train(other, run2)
    assert {row["judge"] for row in read_rows(run_dir.scores)} == {f"reward:reward@{checkpoint.name[5:].lstrip('0')}"}
    scores = [[row["score"] for row in read_rows(each.scores)] for each in (run_dir, other)]
    assert max(abs(a - b) for a, b in zip(*scores, strict=True)) > 1e-3


def test_nemotrons_form_takes_a_causal_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "nemotron", "llama")
    text = f"path:{folder}"
    run_dir, run = judge_run(tmp_path / "run", some_answers(3), {text: str(folder)}, judge=text, method="nemotron")
    assert not train(run_dir, run)
    assert len(read_rows(run_dir.scores)) == 6
    assert len({row["score"] for row in read_rows(run_dir.scores)}) == 6


def test_a_judge_of_pairs_leaves_verdicts_and_tells_what_it_is_worth(tmp_path: Path) -> None:
    answers = some_answers()
    with chat_server(longer) as server:
        run_dir, run = judge_run(
            tmp_path / "run", answers, {API: server.url}, judge=API, baseline="a", repeat_fraction=0.25
        )
        assert not train(run_dir, run)
        assert len(server.asked) == 2 * 12 + 2 * 3
    found = read_rows(run_dir.verdicts)
    assert [row["prompt_id"] for row in found] == [f"p{n}" for n in range(12)]
    for row, each in zip(found, answers.questions, strict=True):
        longest = len(each.answers["b"]) - len(each.answers["a"])
        assert row["preference"] == (0.5 if not longest else 1.0 if longest > 0 else 0.0)
        assert (row["model_a"], row["model_b"], row["judge"]) == ("b", "a", "llm:judge")
    values = measured(run_dir)
    assert values == {
        "judged": 12, "unparsable": 0, "undecided": 0, "order_disagreement": 0.0, "repeat_disagreement": 0.0, "repeated": 0,
    }  # fmt: skip
    assert "Of 12 pairs, 0 (0.0%) are undecided" in logs(run_dir)
    assert len(records(run_dir, "sample")) == 5
    assert not run_dir.scores.exists()


def test_somebodys_own_instructions_are_what_the_judge_reads(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Judge in verse.\n{prompt}\n{answer_1}\n{answer_2}\nA, B or tie?")
    with chat_server(longer) as server:
        inputs = {API: server.url, f"path:{own}": str(own)}
        run_dir, run = judge_run(tmp_path / "run", some_answers(1), inputs, judge=API, instructions=f"path:{own}")
        assert not train(run_dir, run)
        assert all(asked.last.startswith("Judge in verse.") for asked in server.asked)
        own.write_text("{prompt} only")
        again, run2 = judge_run(tmp_path / "again", some_answers(1), inputs, judge=API, instructions=f"path:{own}")
        with pytest.raises(InputError, match="lacks"):
            train(again, run2)
    assert len(server.asked) == 2


def test_rows_of_what_others_wrote_are_judged_too(tmp_path: Path) -> None:
    """Without “ended” and “tokens”, the prompt a plain text."""
    lines = [{"prompt_id": 1, "model": m, "response": text, "prompt": "Hi?"} for m, text in (("a", "x"), ("b", "yy"))]
    with chat_server(longer) as server:
        run_dir, run = judge_run(tmp_path / "run", lines, {API: server.url}, judge=API)
        assert not train(run_dir, run)
    assert read_rows(run_dir.verdicts)[0]["preference"] == 0.0


def test_a_reward_model_of_the_hub_is_fetched_and_judges(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    with MiniHub() as hub:
        hub.add("model", "me/reward", folder)
        hub.add("model", "me/causal", make_model(tmp_path / "causal"))
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
        run_dir, _ = judge_run(tmp_path / "run", some_answers(3), judge="hf:me/reward")
        assert end(start(run_dir, **home)) == (Exit.FINISHED, "")
        other, _ = judge_run(tmp_path / "other", some_answers(3), judge="hf:me/causal")
        code, errors = end(start(other, **home))
    assert code == Exit.MODEL and "not a reward model" in errors
    assert {row["judge"] for row in read_rows(run_dir.scores)} == {"reward:reward"}
    local, run = judge_run(tmp_path / "local", some_answers(3), {f"path:{folder}": str(folder)}, judge=f"path:{folder}")
    assert not train(local, run)
    assert [row["score"] for row in read_rows(run_dir.scores)] == pytest.approx(
        [row["score"] for row in read_rows(local.scores)], abs=1e-5
    )


# -- what cannot be judged -----------------------------------------------------------------------------------------


def test_a_model_that_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[Path, str]] = [
        (make_model(tmp_path / "causal"), "is a Qwen2ForCausalLM, not a reward model"),
        (make_reward_model(tmp_path / "three", labels=3), "gives 3 scores; a judge gives one"),
        (tmp_path / "nowhere", "no model folder"),
    ]
    for folder, words in cases:
        text = f"path:{folder}"
        run_dir, run = judge_run(tmp_path / f"run-{folder.name}", some_answers(1), {text: str(folder)}, judge=text)
        with pytest.raises(ModelError, match=words):
            train(run_dir, run)
        assert not run_dir.scores.exists()


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    text = f"path:{folder}"
    run_dir, run = judge_run(tmp_path / "run", some_answers(1), {text: str(folder)}, judge=text)
    with pytest.raises(ModelError, match="only pickle weights"):
        train(run_dir, run)


def test_weights_that_give_no_number_name_an_answer(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    text = f"path:{folder}"
    run_dir, run = judge_run(tmp_path / "run", some_answers(2), {text: str(folder)}, judge=text)
    with pytest.raises(ModelError, match=r"to the prompt “p[01]” no number as its score, but nan"):
        train(run_dir, run)


def test_a_judge_that_says_nothing_that_can_be_read_fails_and_says_what_it_said(tmp_path: Path) -> None:
    with chat_server(lambda asked: "I am only a language model.") as server:
        run_dir, run = judge_run(tmp_path / "run", some_answers(2), {API: server.url}, judge=API)
        with pytest.raises(DataError, match=r"Nothing could be judged\. 4 requests were answered without a verdict"):
            train(run_dir, run)
    assert measured(run_dir)["unparsable"] == 4 and not run_dir.verdicts.exists()


def test_an_endpoint_that_says_no_ends_the_run_and_what_was_judged_is_kept(tmp_path: Path) -> None:
    def broke(asked: Asked) -> str | Says:
        return longer(asked) if len(server.asked) <= 5 else says({"error": "no money"}, 402)

    with chat_server(broke) as server:
        settings: dict[str, Any] = {"judge": API, "concurrency": 1}
        run_dir, run = judge_run(tmp_path / "run", some_answers(), {API: server.url}, **settings)
        with pytest.raises(EndpointError, match="402"):
            train(run_dir, run)
        assert len(server.asked) == 6
        server.answer = longer
        again, run = judge_run(run_dir.root, some_answers(), {API: server.url}, attempt=2, **settings)
        assert not train(again, run)
        asked = Counter(each.last for each in server.asked)
    assert len(read_rows(run_dir.verdicts)) == 12
    assert sorted(asked.values()) == [1] * 23 + [2], "the refused one alone is asked again"
    assert measured(run_dir)["repeated"] == 1
    assert "1 request was under way when the run was interrupted, and made again, and may be paid for twice." in logs(
        run_dir
    )


def test_the_key_stands_nowhere_in_the_run(tmp_path: Path) -> None:
    key = "sk-very-secret-0001"

    def angry(asked: Asked) -> Says:
        said = asked.headers["authorization"]
        return says({"error": {"message": f"Wrong key: {said}"}}, 401 if len(server.asked) > 2 else 500)

    with chat_server(angry) as server:
        run_dir, _ = judge_run(tmp_path / "run", some_answers(2), {API: server.url}, judge=API)
        code, errors = end(start(run_dir, PREFLAB_KEY_LOCAL=key))
    assert code == Exit.ENDPOINT
    assert "it answered 401" in errors and "PREFLAB_KEY_LOCAL" in errors
    assert all(asked.headers["authorization"] == f"Bearer {key}" for asked in server.asked)
    files = [path for path in run_dir.root.rglob("*") if path.is_file()]
    assert run_dir.error in files and run_dir.journal in files
    for content in (errors.encode(), *(path.read_bytes() for path in files)):
        assert key.encode() not in content


# -- stopped, killed, gone on --------------------------------------------------------------------------------------


def test_killed_in_the_middle_it_asks_again_only_what_was_in_flight(tmp_path: Path) -> None:
    count, at_once = 40, 4
    reached, released = threading.Event(), threading.Event()

    def counted(asked: Asked) -> str:
        if len(server.asked) > 30 and not released.is_set():
            reached.set()
            released.wait(60)
        return longer(asked)

    with chat_server(counted) as server:
        settings: dict[str, Any] = {"judge": API, "concurrency": at_once, "inputs": {API: server.url}}
        run_dir, _ = judge_run(tmp_path / "run", some_answers(count), **settings)
        process = start(run_dir)
        assert reached.wait(60)
        with server.lock:
            before = len(server.asked)
        os.kill(process.pid, signal.SIGKILL)
        assert end(process)[0] == -signal.SIGKILL
        with WorkLog(run_dir.work) as log:
            kept, in_flight = len(log.done) - 1, len(log.interrupted)  # one of the done says which judge it was
        assert 0 < in_flight <= at_once and kept + in_flight >= before
        released.set()
        judge_run(run_dir.root, some_answers(count), attempt=2, **settings)
        assert end(start(run_dir)) == (Exit.FINISHED, "")
        asked = Counter(each.last for each in server.asked)
    assert len(asked) == 2 * count
    assert set(asked.values()) == {1, 2}
    assert sum(times == 2 for times in asked.values()) <= in_flight <= at_once
    assert len(read_rows(run_dir.verdicts)) == count
    assert measured(run_dir)["repeated"] == in_flight
    assert f"{were(in_flight, 'request')} under way when the run was interrupted" in logs(run_dir)


def test_stopped_it_keeps_what_it_has_and_goes_on_to_the_same_verdicts(tmp_path: Path) -> None:
    with chat_server(longer) as server:
        settings: dict[str, Any] = {"judge": API, "concurrency": 1, "inputs": {API: server.url}}
        whole, run = judge_run(tmp_path / "whole", some_answers(), **settings)
        assert not train(whole, run)
        server.asked.clear()
        run_dir, run = judge_run(tmp_path / "run", some_answers(), **settings)
        assert train(run_dir, run, stop_after=8)
        early = len(server.asked)
        assert 0 < early < 24 and not run_dir.verdicts.exists()
        assert not train(*judge_run(run_dir.root, some_answers(), attempt=2, **settings))
        assert len(server.asked) == 24, "nothing is asked twice"
    assert run_dir.verdicts.read_bytes() == whole.verdicts.read_bytes()


def test_a_stop_is_heard_while_the_endpoint_does_not_answer(tmp_path: Path) -> None:
    asked_once, released = threading.Event(), threading.Event()

    def slow(asked: Asked) -> str:
        asked_once.set()
        released.wait(60)
        return longer(asked)

    with chat_server(slow) as server:
        run_dir, _ = judge_run(tmp_path / "run", some_answers(), {API: server.url}, judge=API)
        process = start(run_dir)
        assert asked_once.wait(60)
        process.send_signal(signal.SIGTERM)
        code, errors = end(process)
        assert (code, errors) == (Exit.STOPPED, "")
        released.set()


def test_reward_scores_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    settings: dict[str, Any] = {
        "judge": f"path:{folder}",
        "micro_batch_size": 4,
        "inputs": {f"path:{folder}": str(folder)},
    }
    whole, run = judge_run(tmp_path / "whole", some_answers(), **settings)
    assert not train(whole, run)
    run_dir, run = judge_run(tmp_path / "run", some_answers(), **settings)
    assert train(run_dir, run, stop_after=4)
    with WorkLog(run_dir.work) as log:
        assert len(log.done) == 1 + 3 * 4
    assert not train(*judge_run(run_dir.root, some_answers(), attempt=2, **settings))
    ours, theirs = read_rows(run_dir.scores), read_rows(whole.scores)
    assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in theirs], abs=1e-5)
    assert measured(run_dir)["repeated"] == 0


def test_results_of_two_judges_are_never_mixed(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "judge")
    settings: dict[str, Any] = {
        "judge": f"path:{folder}",
        "micro_batch_size": 4,
        "inputs": {f"path:{folder}": str(folder)},
    }
    run_dir, run = judge_run(tmp_path / "run", some_answers(), **settings)
    assert train(run_dir, run, stop_after=4)
    make_reward_model(folder, seed=1)
    with pytest.raises(InputError, match=r"what it judges with has changed \(model\)"):
        train(*judge_run(run_dir.root, some_answers(), attempt=2, **settings))
    make_reward_model(folder, seed=0)
    with pytest.raises(InputError, match=r"has changed \(answers\)"):
        train(*judge_run(run_dir.root, some_answers(13), attempt=3, **settings))
    assert not train(*judge_run(run_dir.root, some_answers(), attempt=4, **settings))


def test_what_the_worker_takes_in_is_what_the_stage_leaves(tmp_path: Path) -> None:
    """The rows pass the checks of those who put them into the database."""
    from app.winrates.rows import as_score, as_verdict

    with chat_server(longer) as server:
        run_dir, run = judge_run(tmp_path / "pairs", some_answers(), {API: server.url}, judge=API)
        assert not train(run_dir, run)
    assert len([as_verdict(row) for row in read_rows(run_dir.verdicts)]) == 12
    run_dir, run = judge_run(tmp_path / "checker", some_answers(), judge="checker")
    assert not train(run_dir, run)
    assert len([as_score(row) for row in read_rows(run_dir.scores)]) == 24
