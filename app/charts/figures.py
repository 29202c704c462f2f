"""From curves to Plotly figures, as plain dictionaries. Pure; the browser only puts newer points into them.

A trace says in `meta` which metric it draws and by which token it is coloured, so that a page can change theme,
smoothing and x-axis without asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.charts.tokens import THEMES, Theme, colour

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'


@dataclass(frozen=True)
class Chart:
    """One chart: which metrics, under what title, in which unit. `sparse` metrics get markers, `noisy`
    ones are smoothed."""

    title: str
    keys: tuple[str, ...]
    unit: str = ""
    names: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()
    format: str = ".4~g"
    zero: bool = False  # the axis begins at 0: an amount
    minor: bool = False  # folded away


CHARTS = (
    Chart("Loss", ("loss", "eval_loss"), "nats per token", ("train", "eval"), sparse=("eval_loss",), noisy=("loss",)),
    Chart("Learning rate", ("learning_rate",), format=""),
    Chart("Gradient norm", ("grad_norm",), "before clipping", noisy=("grad_norm",), zero=True),
    Chart("Speed", ("tokens_per_second",), "tokens/s", noisy=("tokens_per_second",), format=",.0f", zero=True),
    Chart("Memory", ("memory",), "bytes", format=".3~s", zero=True),
    Chart("Utilisation", ("utilisation",), "of the device", noisy=("utilisation",), format=".0%", zero=True),
    Chart("Tokens seen", ("tokens",), "tokens", format=".4~s", zero=True, minor=True),
    Chart("Epoch", ("epoch",), "passes over the data", format=".3~g", zero=True, minor=True),
)


def charts_for(keys: Sequence[str]) -> list[Chart]:
    """The known charts of which a run has a metric, then one for each metric that nobody has named yet."""
    known = {key for chart in CHARTS for key in chart.keys}
    named = [chart for chart in CHARTS if set(chart.keys) & set(keys)]
    return named + [Chart(key.replace("_", " ").capitalize(), (key,)) for key in keys if key not in known]


def figure(chart: Chart, series: dict[str, dict[str, Any]], run_colour: str) -> dict[str, Any]:
    """A chart's traces and layout, over steps. `series`: {key: {"step", "value", ..}}; `run_colour`: a token."""
    data: list[dict[str, Any]] = []
    for index, key in enumerate(chart.keys):
        points = series.get(key)
        if points is None:
            continue
        token = run_colour if index == 0 else "ink-2"
        name = chart.names[index] if chart.names else chart.title
        data.append(_trace(chart, key, name, token, points))
    axis: dict[str, Any] = {"tickformat": chart.format, "rangemode": "tozero" if chart.zero else "normal"}
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": axis, "showlegend": len(chart.keys) > 1}
    words = {"title": chart.title, "unit": chart.unit, "keys": list(chart.keys), "minor": chart.minor}
    return {"data": data, "layout": layout, **words}


def _trace(chart: Chart, key: str, name: str, token: str, points: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if key in chart.sparse else "lines",
        "name": name,
        "x": points["step"],
        "y": points["value"],
        "connectgaps": False,
        "line": {"width": 1.8},
        "marker": {"size": 6},
        "hovertemplate": f"%{{y:{chart.format}}}" if chart.format else "%{y}",
        "meta": {"key": key, "token": token, "smooth": key in chart.noisy},
    }


def template(theme: Theme) -> dict[str, Any]:
    """The Plotly template of a theme: colours of the stylesheet's tokens, hairlines, no box."""
    ink, quiet, line = colour("ink", theme), colour("ink-2", theme), colour("line", theme)
    surface = colour("surface", theme)
    axis = {
        "gridcolor": line, "linecolor": line, "zerolinecolor": line, "tickcolor": line, "zeroline": False,
        "ticks": "", "automargin": True, "title": {"font": {"size": 11, "color": quiet}, "standoff": 8},
        "nticks": 6, "exponentformat": "e", "showexponent": "all",
    }  # fmt: skip
    return {
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 11.5, "color": quiet},
            "colorway": [colour(f"run-{n}", theme) for n in range(1, 6)],
            "margin": {"l": 8, "r": 10, "t": 10, "b": 8},
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": axis,
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "top"},
            "hovermode": "x unified",
            "hoverlabel": {"bgcolor": surface, "bordercolor": line, "font": {"color": ink, "family": FONT, "size": 12}},
        }
    }


def themes() -> dict[str, Any]:
    """Both templates, and the colours that traces name by token: what a page with charts carries."""
    names = ("ink-2", "ink-3", "line", *(f"run-{n}" for n in range(1, 6)))
    return {
        theme: {"template": template(theme), "colours": {name: colour(name, theme) for name in names}}
        for theme in THEMES
    }
