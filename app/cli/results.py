"""`preflab winrate`, `preflab leaderboard`, `preflab agreement`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from app.cli.common import AsJson, ExperimentName, PromptSet, bench, emit, table, the_experiment
from app.winrates import tables

Judge = Annotated[
    str,
    typer.Option(
        help="Whose verdicts; `human`: all people pooled. Unset: the experiment's primary judge, or the only one."
    ),
]
SHOWN = 30  # pairs of judges in a terminal
NONE = "-"


def add_to(cli: typer.Typer) -> None:
    cli.command("winrate")(winrate)
    cli.command("leaderboard")(leaderboard)
    cli.command("agreement")(agreement)


def winrate(
    experiment: ExperimentName,
    judge: Judge = "",
    baseline: Annotated[
        str, typer.Option(metavar="MODEL", help="Whom the others are held against. Unset: the experiment's baseline.")
    ] = "",
    prompts: PromptSet = "",
    as_json: AsJson = False,
) -> None:
    """How often each model's answer is preferred to the baseline's, and which differences mean something."""
    with bench() as here, here.database.read() as session:
        found = tables.winrate(session, the_experiment(session, experiment), judge, baseline, prompts)
    if as_json:
        emit(found.as_json())
        return
    table(
        ["model", "win %", "95 % interval", "n", "W/L/T", "LC %", "empty %", "ended %", "length"],
        [_rate(row) for row in found.rows],
        f"{found.judge} has compared no model with {found.baseline} on {found.prompts}.",
        figures=8,
    )
    print(f"\n{found.experiment}: against {found.baseline}, by {found.judge}, on the prompt set “{found.prompts}”.")
    print("LC: as it would be, were the answers as long as the baseline's. Length: mean characters of an answer.")
    _say(found.findings, found.warnings)


def _rate(row: dict[str, Any]) -> list[str]:
    return [
        row["model"],
        percent(row["win_rate"]),
        _interval(row, 100, 1),
        f"{row['n']:,}",
        f"{row['wins']:,}/{row['losses']:,}/{row['ties']:,}",
        percent(row["length_controlled_win_rate"]),
        percent(row["empty_rate"]),
        percent(row["ended_rate"]),
        NONE if row["mean_length"] is None else f"{row['mean_length']:,.0f}",
    ]


def percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _interval(row: dict[str, Any], times: int = 1, decimals: int = 0) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if low is None or high is None:
        return NONE
    return f"{times * low:,.{decimals}f} to {times * high:,.{decimals}f}"


def _say(findings: Sequence[str], warnings: Sequence[str]) -> None:
    for sentences, mark in ((findings, ""), (warnings, "warning: ")):
        if sentences:
            print()
        for sentence in sentences:
            print(f"{mark}{sentence}")


def leaderboard(
    experiment: ExperimentName, judge: Judge = "", prompts: PromptSet = "", as_json: AsJson = False
) -> None:
    """All models in one ranking (Bradley-Terry): every verdict is a game, a tie half a win to each."""
    with bench() as here, here.database.read() as session:
        found = tables.leaderboard(session, the_experiment(session, experiment), judge, prompts)
    if as_json:
        emit(found.as_json())
        return
    table(
        ["model", "Elo", "95 % interval", "score", "games"],
        [
            [
                row["model"],
                NONE if row["elo"] is None else f"{row['elo']:,.0f}",
                _interval(row),
                NONE if row["score"] is None else f"{row['score']:.4f}",
                f"{row['games']:,}",
            ]
            for row in found.rows
        ],
        f"{found.judge} has compared no models on {found.prompts}.",
        figures=4,
    )
    print(f"\n{found.experiment}: by {found.judge}, on the prompt set “{found.prompts}”.")
    _say([], found.warnings)


def agreement(experiment: ExperimentName, prompts: PromptSet = "", as_json: AsJson = False) -> None:
    """How far judges agree, two by two, on whether a model's answer wins, loses or ties."""
    with bench() as here, here.database.read() as session:
        found = tables.agreement(session, the_experiment(session, experiment), prompts)
    if as_json:
        emit(found.as_json())
        return
    table(
        ["judge", "and", "both judged", "agree %", "without ties %", "Cohen's kappa"],
        [
            [
                row["judge_a"],
                row["judge_b"],
                f"{row['n']:,}",
                percent(row["agreement"]),
                percent(row["agreement_without_ties"]),
                _decimals(row["cohen_kappa"]),
            ]
            for row in found.rows[:SHOWN]
        ],
        "No two judges have judged the same two answers.",
        figures=4,
    )
    more = len(found.rows) - SHOWN
    if more > 0:
        print(f"\n{more:,} more {'pair' if more == 1 else 'pairs'} of judges, which share fewer: `--json` has all.")
    print(f"\n{found.experiment}: on the prompt set “{found.prompts}”.")
    if found.krippendorff_alpha is not None:
        print(f"Krippendorff's alpha over all judges: {_decimals(found.krippendorff_alpha)}")


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
