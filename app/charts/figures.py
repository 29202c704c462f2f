"""From curves to Plotly figures, as plain dictionaries. Pure; the browser only puts newer points into them.

A trace says in `meta` which metric it draws and by which token it is coloured, so that a page can change theme,
smoothing and x-axis without asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.charts.catalogue import RUN, Chart, Trace
from app.charts.tokens import THEMES, Theme, colour

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'


def figure(chart: Chart, series: dict[str, dict[str, Any]], run_colour: str, x: str = "step") -> dict[str, Any]:
    """A chart's traces and layout, over steps. `series`: {key: {"step", "value", ..}}; `run_colour`: a token;
    `x`: what a step is."""
    traces = [trace for trace in chart.traces if trace.key in series]
    data = [_trace(chart, trace, series[trace.key], run_colour) for trace in traces]
    axis: dict[str, Any] = {"tickformat": chart.format, "rangemode": "tozero" if chart.zero else "normal"}
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": axis, "showlegend": len(chart.traces) > 1}
    minor = chart.minor or (chart.minor_while_constant and all(_constant(each["y"]) for each in data))
    words = {"title": chart.title, "unit": chart.unit, "help": chart.help, "keys": list(chart.keys), "minor": minor}
    return {"data": data, "layout": layout, "lines": [vars(line) for line in chart.lines], **words}


def _constant(values: Sequence[float | None]) -> bool:
    """Whether they are one value, to the rounding of fp32: 0.1 summed over micro-batches is not always the same 0.1."""
    known = [value for value in values if value is not None]
    return not known or max(known) - min(known) <= 1e-6 * max(map(abs, known))


def _trace(chart: Chart, trace: Trace, points: dict[str, Any], run_colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if trace.sparse else "lines",
        "name": trace.name or chart.title,
        "showlegend": not trace.dashed,
        "x": points["step"],
        "y": points["value"],
        "connectgaps": False,
        "line": {"width": 1.8, "dash": "dot" if trace.dashed else "solid"},
        "marker": {"size": 5 if trace.dashed else 6},
        "hovertemplate": f"%{{y:{chart.format}}}" if chart.format else "%{y}",
        "meta": {
            "key": trace.key,
            "token": run_colour if trace.token == RUN else trace.token,
            "smooth": trace.noisy,
        },
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
            "margin": {"l": 8, "r": 10, "t": 24, "b": 8},
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": axis,
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
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
