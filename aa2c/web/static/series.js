// The series of a run: kept here from /history and from each status that follows.

import { byId } from "./words.js";

const MOST_POINTS = 4000; // per series; beyond that /history, which is evenly thinned out, is read again
const SERIES = {
  time_s: (s) => s.run.uptime_s,
  env_steps: (s) => s.progress.env_steps,
  train_return_mean: (s) => s.returns.train.mean,
  policy: (s) => s.losses.policy,
  value: (s) => s.losses.value,
  entropy: (s) => s.losses.entropy,
  explained_variance: (s) => s.losses.explained_variance,
  value_unit: (s) => s.losses.value_unit,
  grad_norm: (s) => s.losses.grad_norm,
  grad_share: (s) => s.losses.grad_share,
  ratio: (s) => s.losses.ratio,
  clip_fraction: (s) => s.losses.clip_fraction,
  approx_kl: (s) => s.losses.approx_kl,
  learning_rate: (s) => s.losses.learning_rate,
  env_steps_per_s: (s) => s.throughput.env_steps_per_s,
  updates_per_s: (s) => s.throughput.updates_per_s,
  policy_lag_mean: (s) => s.policy_lag.mean,
};
export const POLICIES = ["greedy", "sampled"];

let columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, []]));
let tests = Object.fromEntries(POLICIES.map((policy) => [policy, { time_s: [], env_steps: [], mean: [] }]));
let episodes = { time_s: [], env_steps: [], return: [] };
let known = null; // number of episodes when the newest were added
let marks = [];

export const xAxis = () => byId("x-axis").value;
export const marksOf = () => marks;
export const episodesOf = () => [episodes[xAxis()], episodes.return];
export const testsOf = (policy) => distinct(tests[policy][xAxis()], tests[policy].mean);
export const seriesOf = (name) => distinct(columns[xAxis()], columns[name]);
export const hasValues = (name) => columns[name].some((value) => value !== null);
export const hasTooMany = () => Math.max(columns.time_s.length, episodes.return.length) > MOST_POINTS;

export async function readHistory() {
  const kept = await (await fetch("history")).json();
  columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, kept.series[name]]));
  ({ tests, episodes, marks } = kept);
  known = null;
}

export function addStatus(status) {
  marks = status.marks;
  addRow(status);
  addTests(status);
  addEpisodes(status);
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

// A status has only the newest returns: of a fast run the chart gets a sample of its episodes.
function addEpisodes({ run, progress, newest_returns: newest }) {
  const added = known === null ? 0 : Math.min(progress.episodes - known, newest.length);
  known = progress.episodes;
  for (const value of added > 0 ? newest.slice(-added) : []) {
    episodes.time_s.push(run.uptime_s);
    episodes.env_steps.push(progress.env_steps);
    episodes.return.push(value);
  }
}

// Of several values at the same env steps only the newest is drawn: uPlot wants each x once.
function distinct(xs, ys) {
  const last = xs.map((x, i) => x !== xs[i + 1]);
  const kept = (values) => values.filter((_, i) => last[i]);
  return [kept(xs), kept(ys)];
}

// Exponential moving average, as TensorBoard's: debiased, so that it starts at the first value.
export function smoothed(values, weight) {
  let [mean, seen] = [0, 0];
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    mean = weight * mean + (1 - weight) * value;
    seen += 1;
    return mean / (1 - weight ** seen);
  });
}

export function csvOf(name) {
  const names = ["time_s", "env_steps", name];
  return lines(names, names.map((it) => columns[it]));
}

// The mean, the evaluations and the episodes, each in rows of its own.
export function csvOfReturns() {
  const rows = [["train_mean", columns, columns.train_return_mean], ["train_episode", episodes, episodes.return],
    ...POLICIES.map((policy) => [`test_${policy}_mean`, tests[policy], tests[policy].mean])];
  const flat = rows.flatMap(([kind, { time_s: times, env_steps: steps }, values]) =>
    values.map((value, i) => [times[i], steps[i], kind, value]));
  return lines(["time_s", "env_steps", "kind", "return"], [0, 1, 2, 3].map((k) => flat.map((row) => row[k])));
}

function lines(names, table) {
  const rows = table[0].map((_, i) => table.map((column) => column[i] ?? "").join(","));
  return `${[names.join(","), ...rows].join("\n")}\n`;
}
