// Draws a run's charts with Plotly. The server says what is drawn and how; here come theme, smoothing, axes and points.

import { write } from "./health.js";
import { smoothed } from "./series.js";

const AXES = { tokens: "tokens seen", seconds: "minutes" }; // what else than steps, which each chart names
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };
const HEIGHT = 220;

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

export class Charts {
  constructor(box, themes, series) {
    this.box = box;
    this.more = box.parentElement.querySelector(".more-charts");
    this.themes = themes;
    this.series = series;
    this.view = { axis: "step", smooth: 0.6, log: false, clip: false };
    this.charts = [];
    this.findings = [];
    this.seen = new WeakSet();
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.seen.add(target);
        else this.seen.delete(target);
        if (isIntersecting) this.soon();
      }
    });
    document.addEventListener("theme", () => this.drawAll());
    this.more.addEventListener("toggle", () => this.drawAll());
    document.addEventListener("visibilitychange", () => this.soon());
  }

  // The charts that the server lists, in its order.
  show(charts) {
    if (!charts.length) return;
    document.getElementById("no-charts")?.remove();
    this.observer.disconnect();
    this.charts = charts.map((chart) => ({ ...chart, ...card(chart) }));
    const minor = this.charts.filter((chart) => chart.minor).map((chart) => chart.card);
    this.box.replaceChildren(...this.charts.filter((chart) => !chart.minor).map((chart) => chart.card));
    this.more.hidden = !minor.length;
    this.more.querySelector("summary").textContent = `${minor.length} more chart${minor.length === 1 ? "" : "s"}`;
    this.more.querySelector(".charts").replaceChildren(...minor);
    for (const chart of this.charts) this.observer.observe(chart.plot);
    this.say(this.findings);
    this.drawAll();
  }

  // What the curves say, each finding under the title of its chart.
  say(findings) {
    this.findings = findings;
    for (const chart of this.charts) write(chart, findings.filter((each) => chart.keys.includes(each.metric)));
  }

  // Brings the chart of a metric into view.
  find(metric) {
    const chart = this.charts.find((each) => each.keys.includes(metric));
    if (chart?.minor) this.more.open = true;
    chart?.card.scrollIntoView({ block: "center" });
    chart?.card.focus({ preventScroll: true });
  }

  set(change) {
    Object.assign(this.view, change);
    this.drawAll();
  }

  drawAll() {
    this.charts.filter((chart) => !chart.minor || this.more.open).forEach((chart) => this.draw(chart));
  }

  // After new points: at most twice a second, and only what is seen.
  soon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      if (!document.hidden) this.charts.filter((chart) => this.seen.has(chart.plot)).forEach((chart) => this.draw(chart));
    }, 400);
  }

  draw(chart) {
    const theme = this.themes[isDark() ? "dark" : "light"];
    const traces = chart.data.flatMap((trace) => this.traces(trace, theme));
    Plotly.react(chart.plot, traces, this.layout(chart, theme, traces), CONFIG);
  }

  traces(trace, theme) {
    const { key, token, smooth } = trace.meta;
    const curve = this.series.curves.get(key) ?? { step: [], value: [], seconds: [], tokens: [] };
    const x = this.view.axis === "seconds" ? curve.seconds.map((each) => each / 60) : curve[this.view.axis];
    const colour = theme.colours[token];
    const styled = { ...trace, x, y: curve.value, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
    if (!smooth || this.view.smooth < 0.01 || curve.value.length < 3) return [styled];
    const raw = { ...styled, opacity: 0.28, line: { ...styled.line, width: 1 }, showlegend: false, hoverinfo: "skip", hovertemplate: undefined };
    return [raw, { ...styled, y: smoothed(curve.value, this.view.smooth) }];
  }

  layout(chart, theme, traces) {
    const { layout } = chart;
    const yaxis = { ...layout.yaxis };
    if (this.view.log) Object.assign(yaxis, { type: "log", rangemode: "normal", tickformat: ".3~g" });
    if (this.view.clip) Object.assign(yaxis, clipped(traces, this.view.log));
    return {
      ...layout,
      template: theme.template,
      height: HEIGHT,
      xaxis: { ...layout.xaxis, title: { ...layout.xaxis.title, text: AXES[this.view.axis] ?? layout.xaxis.title.text } },
      yaxis,
      uirevision: `${this.view.axis} ${this.view.log}`,
      ...this.marks(chart, theme),
    };
  }

  // Thin lines: across, what the curves are held against; down, where a later attempt went on.
  marks(chart, theme) {
    const line = { color: theme.colours["ink-3"], width: 1, dash: "dot" };
    const label = { font: { size: 10, color: theme.colours["ink-3"] }, textposition: "end", yanchor: "bottom" };
    const across = chart.lines.map(({ value, label: text }) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line, layer: "below", label: { ...label, text },
    }));
    const restarts = this.restarts(chart);
    const down = restarts.map(({ x }) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line, opacity: 0.6 }));
    const annotations = restarts.map(({ x, attempt }) => ({
      x, yref: "paper", y: 1, text: "↻", showarrow: false, xanchor: "left", yanchor: "top", font: { size: 11 },
      hovertext: `attempt ${attempt.attempt} went on from step ${attempt.step}`,
    }));
    return { shapes: [...across, ...down], annotations };
  }

  // Where later attempts went on.
  restarts(chart) {
    const curve = this.series.curves.get(chart.keys[0]);
    return this.series.attempts.slice(1).flatMap((attempt) => {
      const index = curve ? curve.step.findIndex((step) => step >= attempt.step) : -1;
      if (index < 0) return [];
      const x = this.view.axis === "seconds" ? curve.seconds[index] / 60 : curve[this.view.axis][index];
      return [{ x, attempt }];
    });
  }
}

// A chart's frame: its title with a word of help, the place where it is drawn, and what its curves say.
function card(chart) {
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const frame = make("figure", { className: "card chart", tabIndex: -1 });
  const caption = make("figcaption", {});
  caption.append(make("b", { textContent: chart.title }), " ", make("small", { textContent: chart.unit }));
  if (chart.help) {
    const id = `about-${chart.keys[0]}`;
    const button = make("button", { type: "button", className: "about", textContent: "?" });
    button.setAttribute("aria-label", `What ${chart.title} shows`);
    button.setAttribute("aria-describedby", id);
    button.addEventListener("keydown", ({ key }) => key === "Escape" && button.blur());
    const words = make("span", { id, className: "about-words", textContent: chart.help });
    words.setAttribute("role", "tooltip");
    caption.append(button, words);
  }
  const short = make("p", { className: "said-short" });
  const said = make("div", { className: "said" });
  const plot = make("div", { className: "plot" });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", chart.title);
  frame.append(caption, short, plot, said);
  return { card: frame, short, plot, said };
}

// From the 1st to the 99th of a hundred points.
function clipped(traces, log) {
  const values = traces.flatMap((trace) => trace.y).filter((value) => value !== null && (!log || value > 0)).sort((a, b) => a - b);
  if (values.length < 20) return {};
  const at = (share) => values[Math.floor(share * (values.length - 1))];
  const [low, high] = [at(0.01), at(0.99)].map((value) => (log ? Math.log10(value) : value));
  const room = (high - low) * 0.05 || 1e-9;
  return { range: [low - room, high + room], autorange: false };
}
