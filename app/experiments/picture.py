"""An experiment's graph of runs as a picture: where each run stands, and the lines from what it needs. Pure.

Layers go from left to right: a run stands right of all that it needs (longest path). Within a layer runs are put near
the middle of what they are linked to, so that few lines cross (Sugiyama, Tagawa & Toda 1981, the barycentre method).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 150, 46  # of a run's box, in pixels
GAP, SPACE = 44, 14  # between layers, and between boxes of one
PASSAGE = 2  # the height of a place where a line passes a layer
SWEEPS = 8  # over all layers, there and back: more change nothing in graphs of this size


@dataclass(frozen=True)
class Box:
    """A run's place: its left upper corner in pixels. `row`: as templates show runs."""

    x: float
    y: float
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """All boxes, and the lines as SVG path data, each with the states of the runs at its ends."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[tuple[str, str, str]]


def picture(rows: Sequence[Mapping[str, Any]], edges: Iterable[tuple[int, int]]) -> Picture:
    """Runs (with `id` and `state`) and (parent, child) ids; edges of other runs are left out."""
    by_id = {int(row["id"]): row for row in rows}
    links = sorted({(a, b) for a, b in edges if a in by_id and b in by_id})
    layers = _layers(list(by_id), links)
    ways = _ways(layers, links)
    layers = _ordered(layers, [step for way in ways.values() for step in pairwise(way)])
    tallest = max(map(_tall, layers), default=0)
    places: dict[int, tuple[float, float]] = {}
    for column, layer in enumerate(layers):
        y = (tallest - _tall(layer)) / 2
        for run in layer:
            places[run] = column * (WIDTH + GAP), y
            y += _high(run) + SPACE
    return Picture(
        width=max(0, len(layers) * (WIDTH + GAP) - GAP),
        height=tallest,
        boxes=[Box(*places[run], by_id[run]) for layer in layers for run in layer if run in by_id],
        lines=[
            (_line([(x, y, _high(run)) for run in way for x, y in [places[run]]]), by_id[a]["state"], by_id[b]["state"])
            for (a, b), way in ways.items()
        ],
    )


def _high(run: int) -> float:
    """A run's height; that of a place which a line passes, whose number is below 0, is small."""
    return HEIGHT if run >= 0 else PASSAGE


def _tall(layer: Sequence[int]) -> float:
    return sum(map(_high, layer)) + SPACE * max(0, len(layer) - 1)


def _ways(layers: list[list[int]], links: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """What each link passes: its ends, and between them a place of its own in every layer that it crosses.

    These places are added to the layers, so that no line goes through another run's box.
    """
    column = {run: place for place, layer in enumerate(layers) for run in layer}
    ways: dict[tuple[int, int], list[int]] = {}
    number = 0
    for a, b in links:
        ways[a, b] = [a]
        for crossed in range(column[a] + 1, column[b]):
            number -= 1
            layers[crossed].append(number)
            ways[a, b].append(number)
        ways[a, b].append(b)
    return ways


def _layers(runs: Sequence[int], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Runs by the longest path that leads to them."""
    depth = dict.fromkeys(runs, 0)
    for _ in runs:  # a path has as many links as there are runs, at most
        deeper = {b: depth[a] + 1 for a, b in links if depth[b] <= depth[a]}
        if not deeper:
            break
        for run, at_least in deeper.items():
            depth[run] = max(depth[run], at_least)
    layers: list[list[int]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for run in runs:
        layers[depth[run]].append(run)
    return [layer for layer in layers if layer]


def _ordered(layers: list[list[int]], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each layer in the order of the mean places of its runs' neighbours, on one side and then on the other."""
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for a, b in links:
        before.setdefault(b, []).append(a)
        after.setdefault(a, []).append(b)
    for sweep in range(SWEEPS):
        near = before if sweep % 2 == 0 else after
        place = {run: at - (len(layer) - 1) / 2 for layer in layers for at, run in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(key=lambda run: _mean([place[other] for other in near.get(run, ())], place[run]))
            place.update({run: at - (len(layer) - 1) / 2 for at, run in enumerate(layer)})
    return layers


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _line(places: Sequence[tuple[float, float, float]]) -> str:
    """A curve from the right side of one box to the left side of another, straight through the places on its way.

    places: (x, y, height) of each.
    """
    (x, y, height), *others = places
    path, here = "", (x + WIDTH, y + height / 2)
    for x, y, height in others:
        (x1, y1), (x2, y2) = here, (x, y + height / 2)
        bend = (x2 - x1) / 2
        start = path or f"M{x1:g} {y1:g}"
        passed = "" if (x, y, height) == others[-1] else f" H{x2 + WIDTH:g}"
        path = f"{start} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}{passed}"
        here = x2 + WIDTH, y2
    return path
