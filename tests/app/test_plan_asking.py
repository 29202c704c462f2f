"""What a run that answers or judges will cost is counted before it is launched."""

import pytest

from app.runs.plan_asking import plan_asking
from tests.app.winrates.made import Bring, answered, the
from training.config import parse_config

THREE = answered(["one", "two", "three"], prompts=2)


def planned(session, owner, **content):
    lines = plan_asking(session, parse_config(content), owner)
    return {line.label: line.value for line in lines}


@pytest.mark.parametrize(
    ("own", "asked", "requests"),
    [("", "", "about 12"), ("one", "", "about 8"), ("", "two", "about 8")],
    ids=["each with each", "the experiment's baseline", "the run's own"],
)
def test_a_judge_of_pairs_is_asked_about_each_pair_in_both_orders(database, tmp_path, own, asked, requests):
    Bring(database, tmp_path).responses(THREE)
    with database.write() as session:
        owner = the(session)
        owner.spec = {"baseline": own} if own else {}
        found = planned(session, owner, stage="judge", judge="api:local/judge", baseline=asked)
        twice = planned(session, owner, stage="judge", judge="api:local/judge", baseline="one", repeat_fraction=0.5)
    assert found == {"answers": "6", "requests": requests}
    assert twice["requests"] == "about 12"


def test_a_judge_that_scores_has_no_requests_to_count_and_nothing_is_counted_before_there_is_anything(
    database, tmp_path
):
    Bring(database, tmp_path).responses(THREE)
    with database.write() as session:
        assert planned(session, the(session), stage="judge", judge="checker") == {"answers": "6"}
        assert planned(session, None, stage="judge", judge="checker") == {"answers": ""}
