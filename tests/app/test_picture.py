"""The picture of an experiment's graph."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from app.experiments.picture import GAP, HEIGHT, WIDTH, picture


def rows(*ids: int) -> list[dict[str, object]]:
    return [{"id": each, "state": "queued"} for each in ids]


def test_a_run_stands_right_of_all_that_it_needs() -> None:
    # sft -> dpo -> answers; sft -> answers, too; and one that needs nothing
    found = picture(rows(1, 2, 3, 4), [(1, 2), (2, 3), (1, 3)])
    x = {box.row["id"]: box.x for box in found.boxes}
    assert x == {1: 0, 2: WIDTH + GAP, 3: 2 * (WIDTH + GAP), 4: 0}
    assert (found.width, len(found.lines)) == (3 * WIDTH + 2 * GAP, 3)


def test_two_chains_do_not_cross_however_their_runs_are_numbered() -> None:
    found = picture(rows(1, 2, 3, 4), [(1, 4), (2, 3)])
    y = {box.row["id"]: box.y for box in found.boxes}
    assert (y[1] < y[2]) == (y[4] < y[3])


def test_a_long_line_passes_beside_the_boxes_in_between() -> None:
    found = picture(rows(1, 2, 3), [(1, 2), (2, 3), (1, 3)])
    between = next(box for box in found.boxes if box.row["id"] == 2)
    (passing,) = [path for path, _, _ in found.lines if path.count("C") == 2]
    heights = {float(step.split()[5]) for step in passing.split("C")[1:2]}
    assert not any(between.y - 1 < y < between.y + HEIGHT + 1 for y in heights)


def test_links_to_runs_of_other_experiments_are_left_out() -> None:
    assert picture(rows(1), [(9, 1), (1, 8)]).lines == []


def test_an_experiment_without_runs_is_an_empty_picture() -> None:
    assert picture([], []).boxes == []


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=40))
def test_no_box_covers_another_and_all_lines_go_right(pairs: list[tuple[int, int]]) -> None:
    links = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    found = picture(rows(*range(15)), links)
    assert len(found.boxes) == 15
    for a, b in combinations(found.boxes, 2):
        assert abs(a.x - b.x) >= WIDTH or abs(a.y - b.y) >= HEIGHT
    x = {box.row["id"]: box.x for box in found.boxes}
    assert all(x[a] < x[b] for a, b in links)
