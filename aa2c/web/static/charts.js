// The charts: series of a run, kept here from /history and each status that follows.

import uPlot from "./vendor/uPlot.esm.js";
import { byId, duration, element, short } from "./words.js";

const MOST_POINTS = 4000; // per series; beyond that /history, which is evenly thinned out, is read again
const SERIES = {
  time_s: (s) => s.run.uptime_s,
  env_steps: (s) => s.progress.env_steps,
  train_return_mean: (s) => s.returns.train.mean,
  policy: (s) => s.losses.policy,
  value: (s) => s.losses.value,
  entropy: (s) => s.losses.entropy,
  grad_norm: (s) => s.losses.grad_norm,
  approx_kl: (s) => s.losses.approx_kl,
  learning_rate: (s) => s.losses.learning_rate,
  env_steps_per_s: (s) => s.throughput.env_steps_per_s,
  updates_per_s: (s) => s.throughput.updates_per_s,
  policy_lag_mean: (s) => s.policy_lag.mean,
};
const RETURNS = ["training, mean of the last 100 episodes", "test, greedy", "test, sampled"];
const POLICIES = ["greedy", "sampled"];
const SMALL_CHARTS = {
  env_steps_per_s: "env steps/s",
  updates_per_s: "updates/s",
  policy_lag_mean: "policy lag, mean",
  policy: "policy loss",
  value: "value loss",
  entropy: "entropy [nats]",
  approx_kl: "approximate KL [nats]",
  grad_norm: "gradient norm before clipping",
  learning_rate: "learning rate",
};

let columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, []]));
let tests = Object.fromEntries(POLICIES.map((policy) => [policy, { time_s: [], env_steps: [], mean: [] }]));
let marks = [];
let charts = []; // [{plot, data, labels}]

export async function readHistory() {
  const kept = await (await fetch("history")).json();
  columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, kept.series[name]]));
  tests = kept.tests;
  marks = kept.marks;
}

export const hasTooMany = () => columns.time_s.length > MOST_POINTS;

export function addStatus(status) {
  marks = status.marks;
  addRow(status);
  addTests(status);
}

function addRow(status) {
  const { time_s: times, env_steps: steps } = columns;
  const before = steps.at(-1) ?? -1;
  if (status.progress.env_steps < before || status.run.uptime_s <= (times.at(-1) ?? -1)) return;
  if (status.run.state === "paused") return;
  for (const [name, get] of Object.entries(SERIES)) columns[name].push(get(status));
}

// An evaluation is a point where its parameters were learned, not where the page is when it ends.
function addTests({ run, returns }) {
  for (const policy of POLICIES) {
    const [{ mean, env_steps }, points] = [returns.test[policy], tests[policy]];
    if (env_steps === null || env_steps <= (points.env_steps.at(-1) ?? -1)) continue;
    points.time_s.push(run.uptime_s);
    points.env_steps.push(env_steps);
    points.mean.push(mean);
  }
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const xAxis = () => byId("x-axis").value;
const xText = (x) => (xAxis() === "time_s" ? duration(x) : x >= 1e6 ? `${short(x / 1e6)} M` : x >= 1e3 ? `${short(x / 1e3)} k` : `${x}`);

function drawMarks(plot, withText) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = style("--mark");
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.setLineDash([4 * ratio, 3 * ratio]);
  let row = 0;
  for (const mark of marks) {
    const x = plot.valToPos(mark[xAxis()], "x", true);
    if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    if (withText) {
      const isLate = x > bbox.left + bbox.width / 2;
      ctx.textAlign = isLate ? "right" : "left";
      ctx.fillText(mark.text, x + (isLate ? -4 : 4) * ratio, bbox.top + (12 + 13 * (row++ % 8)) * ratio);
    }
  }
  ctx.restore();
}

function makeChart(parent, labels, data, { height, withText }) {
  const axis = { stroke: style("--quiet"), grid: { stroke: style("--gridline") }, ticks: { show: false }, font: "11px system-ui" };
  const colours = ["--series-1", "--series-2", "--series-3"].map(style);
  const plot = new uPlot({
    width: Math.max(200, parent.clientWidth),
    height,
    legend: { show: labels.length > 1 },
    cursor: { drag: { x: true, y: false }, points: { size: 6 } },
    scales: { x: { time: false }, y: { range: yRange } },
    axes: [
      { ...axis, size: 30, values: (_, ticks) => ticks.map(xText), space: 70 },
      { ...axis, size: 58, values: (_, ticks) => ticks.map(short) },
    ],
    series: [
      { label: xAxis() === "time_s" ? "time" : "env steps", value: (_, x) => (x === null ? "–" : xText(x)) },
      ...labels.map((label, i) => ({
        label, stroke: colours[i], width: 2, spanGaps: true, points: { show: i > 0, size: 5, fill: colours[i] },
        value: (self, _, at, index) => short(last(self.data[at], index)),
      })),
    ],
    hooks: { draw: [(self) => drawMarks(self, withText)] },
  }, data(), parent);
  charts.push({ plot, parent, labels, data });
}

// A change of less than a millionth is drawn as constant: all ticks would have the same label.
function yRange(_, low, high) {
  const middle = Math.abs(low ?? 0);
  return uPlot.rangeNum(low, high - low < 1e-6 * middle ? low : high, 0.1, true);
}

// The newest number up to an index: between two evaluations there is none.
function last(values, index = values.length - 1) {
  while (index > 0 && (values[index] ?? null) === null) index -= 1;
  return values[index];
}

const seriesOf = (name) => [columns[xAxis()], columns[name]];
const returnsOf = () => uPlot.join([seriesOf("train_return_mean"), ...POLICIES.map((policy) => [tests[policy][xAxis()], tests[policy].mean])]);

export function makeCharts() {
  charts.forEach(({ plot }) => plot.destroy());
  charts = [];
  makeChart(byId("returns"), RETURNS, returnsOf, { height: 300, withText: true });
  byId("charts").replaceChildren();
  for (const [name, label] of Object.entries(SMALL_CHARTS)) {
    if (columns[name].every((value) => value === null) && name === "approx_kl") continue;
    const parent = element("div", "", { class: "chart", "data-series": name });
    parent.append(element("h3", label));
    byId("charts").append(parent);
    makeChart(parent, [label], () => seriesOf(name), { height: 150, withText: false });
  }
  describeCharts();
}

export function updateCharts() {
  for (const { plot, labels, data } of charts) {
    plot.setData(data());
    if (labels.length > 1 && !(plot.cursor.left >= 0)) plot.setLegend({ idx: plot.data[0].length - 1 });
  }
  describeCharts();
}

function describeCharts() {
  for (const { plot, parent, labels } of charts) {
    const now = labels.map((label, i) => `${label}: ${short(last(plot.data[i + 1]))}`);
    parent.setAttribute("role", "img");
    parent.setAttribute("aria-label", `Chart over ${xAxis() === "time_s" ? "time" : "env steps"}; now ${now.join(", ")}`);
  }
}

export function fitCharts() {
  for (const { plot, parent } of charts) {
    plot.setSize({ width: Math.max(200, parent.clientWidth), height: plot.height });
  }
}
