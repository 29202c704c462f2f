"""A reward model behind an endpoint, in the two shapes of answer that NVIDIA documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.chat_server import Asked, Says, chat_server, says
from tests.training.judging.given import given, question
from training.config import JudgeConfig
from training.endpoint import Endpoint
from training.judging.nemotron import RewardEndpoint, read_reward
from training.judging.scores import SECOND, score_key
from training.references import parse_reference

JUDGE = "api:nvidia/nvidia/llama-3.1-nemotron-70b-reward"
ANSWERS = given(
    question("p1", {"a": "Two.", "b": ""}, prompt="One plus one?"), question("p2", {"a": "<script>\0שלום", "b": "x"})
)


def recorded(reward: str, as_list: bool) -> dict[str, Any]:
    """A chat completion as integrate.api.nvidia.com answers for the reward model."""
    message = {"role": "assistant", "content": reward}
    return {
        "id": "chat-5a1e", "object": "chat.completion", "created": 1728600000, "model": JUDGE.partition("/")[2],
        "choices": [{"index": 0, "message": [message] if as_list else message, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 40, "total_tokens": 41, "completion_tokens": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("reward:-3.28125", -3.28125), ("reward: 2", 2.0), ("Reward:1e-3", 0.001), (" -0.5\n", -0.5), ("+4", 4.0),
        ("reward:", None), ("", None), ("reward:nan", None), ("I like it: 5", None), ("5 of 10", None),
        ("reward:1e999", None),
    ],
)  # fmt: skip
def test_a_reward_is_a_number_and_nothing_else(text: str, reward: float | None) -> None:
    assert read_reward(text) == reward


@pytest.mark.parametrize("as_list", [True, False])
def test_each_answer_is_sent_behind_its_prompt_and_its_reward_read(as_list: bool) -> None:
    rewards = {"Two.": "reward:-3.28125", "": "reward:-30.5", "<script>\0שלום": "reward:1.0", "x": "no number"}

    def answer(asked: Asked) -> Says:
        return says(recorded(rewards[asked.last], as_list))

    config = JudgeConfig(judge=JUDGE)
    assert config.way == "nemotron" and config.judge_name == "reward:nvidia/llama-3.1-nemotron-70b-reward"
    with chat_server(answer) as server:
        judge = RewardEndpoint(ANSWERS, Endpoint(parse_reference(JUDGE), server.url, config, None), {"p1"}, "reward:n")
        begun: list[str] = []
        done: dict[str, Any] = {}
        for results in judge.do(judge.works(), begun.extend, lambda: False):
            done |= results
    assert sorted(begun) == sorted(judge.works()) and len(server.asked) == 6
    bodies = [asked.body for asked in server.asked if asked.last == "Two."]
    assert bodies[0] == {
        "model": "nvidia/llama-3.1-nemotron-70b-reward",
        "messages": [{"role": "user", "content": "One plus one?"}, {"role": "assistant", "content": "Two."}],
    }
    assert score_key("p1", "a", SECOND) in done
    judged = judge.conclude(done)
    assert [(row["prompt_id"], row["model"], row["score"]) for row in judged.scores] == [
        ("p1", "a", -3.28125), ("p1", "b", -30.5), ("p2", "a", 1.0),
    ]  # fmt: skip
    assert judged.values["unparsable"] == 1 and judged.values["repeat_difference"] == 0.0
    assert ("warning", "1 request was answered without a reward, for example with “no number”.") in judged.words
