// The charts: a plot of each series, redrawn as the run goes on.

import {
  csvOf, csvOfReturns, episodesOf, hasValues, marksOf, POLICIES, seriesOf, smoothed, testsOf, xAxis,
} from "./series.js";
import uPlot from "./vendor/uPlot.esm.js";
import { cursor, isZoomed, onView, setView, setWhole, span, zoomToSelection } from "./view.js";
import { byId, duration, element, save, short } from "./words.js";

const RETURNS = ["training, mean of the last 100 episodes", "test, greedy", "test, sampled"];
const SMALL_CHARTS = {
  env_steps_per_s: "env steps/s",
  updates_per_s: "updates/s",
  policy_lag_mean: "policy lag, mean",
  policy: "policy loss",
  value: "value loss",
  explained_variance: "explained variance",
  value_unit: "value unit [rewards]",
  entropy: "entropy [nats]",
  approx_kl: "approximate KL [nats]",
  ratio: "probability ratio",
  clip_fraction: "clip fraction",
  grad_norm: "gradient norm, unclipped",
  grad_share: "gradient left by clipping",
  learning_rate: "learning rate",
};
const POSITIVE = ["value", "approx_kl", "grad_norm", "learning_rate"]; // for which a log axis makes sense
const OF_PPO = ["approx_kl", "ratio", "clip_fraction"]; // shown only where there are values
const RAW = "not smoothed";
const MOST_CHARACTERS = 8; // of a tick of the y axis
const FAINT = 0.3;
const EDGE = 0.01; // of the x axis, so that the newest points are not cut in half

let charts = []; // [{plot, parent, empty, labels, data}]
const onLogAxis = new Set();
let hints = {}; // what each series is, and how it is read

export const setHints = (readings) => { hints = readings; };

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const smoothing = () => Number(byId("smoothing").value);
const isNumber = (value) => value !== null && value !== undefined;
const xText = (x) => (xAxis() === "time_s" ? duration(x) : x >= 1e6 ? `${short(x / 1e6)} M` : x >= 1e3 ? `${short(x / 1e3)} k` : short(x));

function onCanvas({ ctx, bbox }, draw) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, bbox, devicePixelRatio);
  ctx.restore();
}

function fitted(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let length = text.length - 1;
  while (length > 0 && ctx.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}

function drawMarks(plot, withText) {
  onCanvas(plot, (ctx, bbox, ratio) => {
    ctx.strokeStyle = ctx.fillStyle = style("--mark");
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    let row = 0;
    for (const mark of marksOf()) {
      const x = plot.valToPos(mark[xAxis()], "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      if (withText) {
        const isLate = x > bbox.left + bbox.width / 2;
        ctx.textAlign = isLate ? "right" : "left";
        const room = isLate ? x - bbox.left : bbox.left + bbox.width - x;
        ctx.fillText(fitted(ctx, mark.text, room - 8 * ratio), x + (isLate ? -4 : 4) * ratio, bbox.top + (12 + 13 * (row++ % 8)) * ratio);
      }
    }
  });
}

// Behind the lines: an x may hold many episodes, which no series of uPlot can.
function drawEpisodes(plot) {
  const [xs, ys] = episodesOf();
  onCanvas(plot, (ctx, _, ratio) => {
    ctx.fillStyle = style("--series-1");
    ctx.globalAlpha = FAINT;
    const size = 3 * ratio;
    xs.forEach((x, i) => {
      if (isNumber(ys[i])) ctx.fillRect(plot.valToPos(x, "x", true) - size / 2, plot.valToPos(ys[i], "y", true) - size / 2, size, size);
    });
  });
}

// Lines without a second point would be invisible; evaluations are always marked.
function showPoints(plot, at, from, to) {
  let found = 0;
  for (let i = from; i <= to && found < 2; i++) found += isNumber(plot.data[at][i]);
  return found < 2;
}

function seriesOptions(labels, colours) {
  return labels.map((label, i) => {
    const isRaw = label === RAW;
    const isTest = i > 0 && !isRaw;
    const colour = isRaw ? colours[0] : colours[i];
    return {
      label, stroke: colour, alpha: isRaw ? FAINT : 1, width: isRaw || isTest ? 1 : 2, spanGaps: true,
      points: { show: isTest || showPoints, size: 8, fill: colour },
      value: (self, _, at, index) => short(newest(self.data[at], index)),
    };
  });
}

// `data` are the columns: x, a line for each label, and while smoothing the raw line.
function makeChart(parent, labels, data, { height, isReturns = false, isLog = false }) {
  const axis = { stroke: style("--quiet"), grid: { stroke: style("--gridline") }, ticks: { show: false }, font: "11px system-ui" };
  const names = smoothing() ? [...labels, RAW] : labels;
  const plot = new uPlot({
    width: Math.max(200, parent.clientWidth),
    height,
    class: "plot",
    legend: { show: isReturns },
    cursor,
    scales: {
      x: { time: false, range: (_, low, high) => (isNumber(low) ? span() : [0, 1]) },
      y: isLog ? { distr: 3, range: logRange } : { range: isReturns ? rangeWithEpisodes : yRange },
    },
    axes: [
      { ...axis, size: 30, values: (_, ticks) => ticks.map(xText), space: 70 },
      { ...axis, size: 64, values: (_, ticks) => tickTexts(ticks), ...(isLog ? { splits: logTicks, filter: (_, ticks) => ticks } : {}) },
    ],
    series: [
      { label: xAxis() === "time_s" ? "time" : "env steps", value: (_, x) => (x === null ? "–" : xText(x)) },
      ...seriesOptions(names, ["--series-1", "--series-2", "--series-3"].map(style)),
    ],
    hooks: {
      drawAxes: isReturns ? [drawEpisodes] : [],
      draw: [(self) => drawMarks(self, isReturns)],
      setSelect: [zoomToSelection],
    },
  }, data(), parent);
  const empty = element("p", "", { class: "empty" });
  parent.append(empty);
  charts.push({ plot, parent, empty, labels, data, isReturns });
}

// A change of less than a millionth is drawn as constant: all ticks would have the same label.
function yRange(_, low, high) {
  if (low === 0 && high === 0) return [0, 1];
  const middle = Math.abs(low ?? 0);
  return uPlot.rangeNum(low, high - low < 1e-6 * middle ? low : high, 0.1, true);
}

function rangeWithEpisodes(plot, low, high) {
  const [[from, to], [xs, ys]] = [span(), episodesOf()];
  const shown = ys.filter((y, i) => isNumber(y) && xs[i] >= from && xs[i] <= to);
  const all = [low, high, ...shown].filter(isNumber);
  return yRange(plot, ...(all.length ? [Math.min(...all), Math.max(...all)] : [low, high]));
}

const logRange = (_, low, high) => (isNumber(low) ? uPlot.rangeLog(low, high, 10, false) : [1, 10]);

const brief = (x) => (String(x).length > MOST_CHARACTERS ? x.toExponential() : String(x));

// With as many digits as tell them apart: a learning rate may have changed by a thousandth.
function tickTexts(ticks) {
  for (const digits of [4, 6]) {
    const texts = ticks.map((tick) => (isNumber(tick) ? brief(Number(tick.toPrecision(digits))) : ""));
    if (new Set(texts).size === ticks.length) return texts;
  }
  return ticks.map(short);
}

// At most five decades, or within two of them 1, 2 and 5 of each.
function logTicks(_, axis, low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const every = Math.ceil((last - first) / 4);
  const ticks = [];
  for (let exponent = first; exponent <= last; exponent += every) {
    for (const factor of last - first <= 2 ? [1, 2, 5] : [1]) ticks.push(Number(`${factor}e${exponent}`));
  }
  const shown = ticks.filter((tick) => tick >= low && tick <= high);
  return shown.length > 1 ? shown : [low, high];
}

// The newest number up to an index: between two evaluations there is none.
function newest(values, index = values.length - 1) {
  while (index > 0 && !isNumber(values[index])) index -= 1;
  return values[index];
}

function smallData(name) {
  const [xs, raw] = seriesOf(name);
  const values = onLogAxis.has(name) ? raw.map((value) => (value > 0 ? value : null)) : raw;
  return smoothing() ? [xs, smoothed(values, smoothing()), values] : [xs, values];
}

function returnsData() {
  const [xs, means] = seriesOf("train_return_mean");
  const lines = [[xs, smoothed(means, smoothing())], ...POLICIES.map(testsOf)];
  return uPlot.join(smoothing() ? [...lines, [xs, means]] : lines);
}

const shownNames = () => Object.keys(SMALL_CHARTS).filter((name) => !OF_PPO.includes(name) || hasValues(name));

function makeSmallChart(name) {
  const [parent, bar, drawing] = [element("div", "", { class: "chart", "data-series": name }), element("div", "", { class: "bar" }), element("div")];
  const label = SMALL_CHARTS[name];
  const buttons = element("div", "", { class: "tools" });
  if (POSITIVE.includes(name)) {
    const log = element("button", "log", { type: "button", "aria-pressed": String(onLogAxis.has(name)), "aria-label": `logarithmic axis: ${label}` });
    log.addEventListener("click", () => {
      if (!onLogAxis.delete(name)) onLogAxis.add(name);
      makeCharts();
      document.querySelector(`[data-series=${name}] button`).focus();
    });
    buttons.append(log);
  }
  const csv = element("button", "CSV", { type: "button", "aria-label": `CSV of ${label}` });
  csv.addEventListener("click", () => save(`${name}.csv`, csvOf(name)));
  buttons.append(csv);
  bar.append(element("h3", label), buttons);
  parent.append(bar, drawing);
  if (hints[name]) {
    const hint = element("details", "", { class: "hint" });
    hint.append(element("summary", "What it tells", { "aria-label": `what ${label} tells` }), element("p", hints[name]));
    parent.append(hint);
  }
  byId("charts").append(parent);
  makeChart(drawing, [label], () => smallData(name), { height: 150, isLog: onLogAxis.has(name) });
}

export function makeCharts() {
  charts.forEach(({ plot, empty }) => { plot.destroy(); empty.remove(); });
  charts = [];
  measureWhole();
  makeChart(byId("returns"), RETURNS, returnsData, { height: 300, isReturns: true });
  byId("charts").replaceChildren();
  shownNames().forEach(makeSmallChart);
  describeCharts();
}

// From the first row to the last, and to evaluations and episodes beyond.
function measureWhole() {
  const ends = [seriesOf("env_steps"), episodesOf(), ...POLICIES.map(testsOf)].flatMap(([xs]) => [xs[0], xs.at(-1)]).filter(isNumber);
  const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
  setWhole(high > low ? [low, high + EDGE * (high - low)] : [Math.max(0, low - 1), high + 1]);
}

export function updateCharts() {
  if (charts.length !== 1 + shownNames().length) makeCharts();
  measureWhole();
  for (const { plot, data, isReturns } of charts) {
    plot.setData(data());
    if (isReturns && !(plot.cursor.left >= 0)) plot.setLegend({ idx: plot.data[0].length - 1 });
  }
  queueMicrotask(describeCharts); // after uPlot, which draws in one
}

function describeCharts() {
  for (const { plot, parent, empty, labels, isReturns } of charts) {
    const isEmpty = !plot.data.slice(1).some((values) => values.some(isNumber)) && !(isReturns && episodesOf()[1].some(isNumber));
    parent.classList.toggle("waiting", isEmpty);
    empty.textContent = isEmpty ? "waiting for data" : "";
    const now = labels.map((label, i) => `${label}: ${short(newest(plot.data[i + 1]))}`);
    parent.setAttribute("role", "img");
    const part = isZoomed() ? ` from ${xText(plot.scales.x.min)} to ${xText(plot.scales.x.max)}` : "";
    parent.setAttribute("aria-label", `Chart over ${xAxis() === "time_s" ? "time" : "env steps"}${part}; ${isEmpty ? "waiting for data" : `now ${now.join(", ")}`}`);
  }
}

export function fitCharts() {
  for (const { plot, parent } of charts) {
    plot.setSize({ width: Math.max(200, parent.clientWidth), height: plot.height });
  }
}

onView(() => {
  charts.forEach(({ plot }) => plot.setData(plot.data));
  queueMicrotask(describeCharts);
});
byId("x-axis").addEventListener("change", () => { setView(null); makeCharts(); });
byId("smoothing").addEventListener("input", makeCharts);
byId("returns-csv").addEventListener("click", () => save("returns.csv", csvOfReturns()));
