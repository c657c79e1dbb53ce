// The dashboard of a run. Data flows one way: /history once, then /events, each a whole status document,
// through `show` into the parts below. No state is kept except the series behind the charts: everything
// else is in the next document. Only text is ever set, never markup.

import uPlot from "./vendor/uPlot.esm.js";

const MOST_POINTS = 4000; // per series; beyond that /history, which is evenly thinned out, is read again
const RETRY_MS = 2000;
const SILENT_MS = 5000; // without a first event: a proxy buffers them
const ASK_MS = 1000; // polling interval if events do not arrive
const ASK_TIMES = 300; // polls before events are tried again
const FRAME_MS = 70;
const FRAMES_EVERY_MS = 1000;
const ENDED = ["finished", "failed"];
const GONE = " · the program has exited";

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

const byId = (id) => document.getElementById(id);
const told = (write) => (x) => (x === null || x === undefined ? "–" : write(x)); // null: none yet, or no number
const whole = told((x) => Math.round(x).toLocaleString("en"));
const short = told((x) => String(Number(x.toPrecision(4))));
const seconds = told((x) => `${x.toFixed(1)} s`);
const times = (n) => (n === 1 ? "once" : `${whole(n)} times`);
const percent = told((x) => `${Math.round(100 * x)} %`);
const spread = ({ mean, std, nonfinite }) =>
  nonfinite ? `not finite in ${nonfinite}` : mean === null ? "–" : `${short(mean)} ± ${short(std)}`;

function duration(time) {
  if (time === null) return "–";
  const [h, m, s] = [time / 3600, (time / 60) % 60, time % 60].map(Math.floor);
  if (h > 48) return `${Math.floor(h / 24).toLocaleString("en")} days`;
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

function element(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// ---- series and charts ------------------------------------------------------------------------

let columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, []]));
let tests = Object.fromEntries(POLICIES.map((policy) => [policy, { time_s: [], env_steps: [], mean: [] }]));
let marks = [];
let charts = []; // [{plot, data, labels}]

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

function makeCharts() {
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

function updateCharts() {
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

function fitCharts() {
  for (const { plot, parent } of charts) {
    plot.setSize({ width: Math.max(200, parent.clientWidth), height: plot.height });
  }
}

// ---- the parts of the page --------------------------------------------------------------------

function showHeader({ run, progress }) {
  document.body.classList.remove("stale");
  const share = Math.min(1, progress.env_steps / progress.total_env_steps);
  byId("what").textContent = `${run.env}, mode ${run.mode}`;
  const state = byId("state");
  if (state.textContent !== run.state) state.textContent = run.state;
  state.className = `pill ${run.state}`;
  byId("budget").value = share;
  const left = progress.time_left_s === null ? "" : `, ${duration(progress.time_left_s)} left`;
  byId("progress").textContent = `${whole(progress.env_steps)} of ${whole(progress.total_env_steps)} env steps `
    + `(${percent(share)}), ${duration(run.uptime_s)}${left}`;
  document.title = `${percent(share)} ${run.env} · aa2c`;
  byId("dir").textContent = ` · seed ${run.seed}, saved in ${run.dir}`;
  complain(run.error ?? (run.stall && `The run has stalled: ${run.stall}.`));
}

function complain(text) {
  byId("trouble").hidden = !text;
  if (byId("trouble").textContent !== (text ?? "")) byId("trouble").textContent = text ?? "";
}

function showHeadlines({ progress, throughput, returns, policy_lag: lag }) {
  const { train, test } = returns;
  const numbers = {
    "return, last 100 episodes": spread(train),
    "test, greedy": spread(test.greedy),
    "test, sampled": spread(test.sampled),
    "episodes": whole(progress.episodes),
    "env steps/s": whole(throughput.env_steps_per_s),
    "updates/s": short(throughput.updates_per_s),
    "policy version": whole(progress.policy_version),
    "policy lag": `${short(lag.mean)} (${lag.min} … ${lag.max})`,
  };
  byId("headlines").replaceChildren(...Object.entries(numbers).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("p", name), element("p", value));
    return pair;
  }));
}

function showWaits({ throughput, policy_lag: lag }) {
  byId("advice").textContent = throughput.advice;
  const waits = { "updater waits": throughput.updater_wait_share, "workers wait": throughput.worker_wait_share };
  byId("waits").replaceChildren(...Object.entries(waits).map(([name, share]) => {
    const row = element("div", "", { class: "wait" });
    row.append(element("span", name), element("meter", "", { value: share ?? 0, max: 1, "aria-label": name }), element("span", percent(share)));
    return row;
  }));
  const most = Math.max(1, ...lag.recent.map(({ count }) => count));
  const words = [];
  byId("lag").replaceChildren(...lag.recent.map(({ le, count }, i) => {
    const from = i ? lag.recent[i - 1].le + 1 : 0;
    const name = le === null ? `≥ ${from}` : from >= le ? `${le}` : `${from}–${le}`;
    const bar = element("i");
    bar.style.height = `${(80 * count) / most}%`;
    const column = element("div");
    column.append(element("span", count ? whole(count) : ""), bar, element("span", name));
    if (count) words.push(`${name}: ${whole(count)}`);
    return column;
  }));
  byId("lag").setAttribute("aria-label", `Records by policy lag. ${words.join(", ") || "None yet"}`);
  byId("lag-words").textContent = `Versions published between acting and learning; newest ${lag.min} … ${lag.max}, mean ${short(lag.mean)}.`;
}

function showWorkers({ workers, rings, updater, evaluator }) {
  byId("workers").replaceChildren(...workers.map((worker, i) => {
    const ring = rings[i];
    const dropped = Object.values(ring.dropped).reduce((a, b) => a + b, 0);
    const row = element("tr");
    const fill = element("td", "");
    fill.append(element("meter", "", { value: ring.used, max: ring.capacity, "aria-label": `ring of worker ${worker.id}` }), `${ring.used} of ${ring.capacity}`);
    const cells = [worker.id, worker.state, whole(worker.env_steps_per_s), whole(worker.env_steps), seconds(worker.wait_s),
      fill, worker.generation, worker.restarts, worker.last_exit ?? "–", dropped];
    row.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", String(cell)))));
    row.children[1].classList.toggle("bad", ["stopped", "abandoned"].includes(worker.state));
    row.children[9].classList.toggle("bad", dropped > 0);
    return row;
  }));
  const saved = updater.checkpoint_at ? new Date(1000 * updater.checkpoint_at).toLocaleTimeString() : "none yet";
  byId("updater").textContent = `Updater: ${updater.state}, ${updater.threads} update thread${updater.threads > 1 ? "s" : ""}, `
    + `last checkpoint ${saved}${ends(updater)}.`;
  byId("evaluator").textContent = `Evaluator: ${evaluator.state}, ${whole(evaluator.evaluations)} evaluations${ends(evaluator)}.`;
  for (const [id, child] of Object.entries({ updater, evaluator })) {
    byId(id).classList.toggle("bad", ["stopped", "abandoned"].includes(child.state));
  }
}

function ends({ restarts, exits }) {
  const all = Object.entries(exits).map(([how, count]) => `${how} ${times(count)}`);
  return all.length ? `; restarted ${times(restarts)}, after ${all.join(", ")}` : "";
}

function showLog({ log }) {
  const lines = log.length ? [...log].reverse() : [{ time: "", level: "", text: "None." }];
  byId("log").replaceChildren(...lines.map(({ time, level, text }) => {
    const line = element("li", time ? `${new Date(time).toLocaleTimeString()} ` : "");
    line.append(element("b", level, { class: level }), ` ${text}`);
    return line;
  }));
}

// ---- controls ---------------------------------------------------------------------------------

let mayControl = false;
let latest = null;

async function post(path, body = {}, headers = {}) {
  const answer = await fetch(path, {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers },
  });
  const said = answer.status === 204 ? {} : await answer.json();
  return { ok: answer.ok, text: said.text ?? said.error ?? "" };
}

async function control(name, body, where = byId("said")) {
  try {
    const { ok, text } = await post(`control/${name}`, body);
    byId("said").textContent = ok ? text : "";
    where.textContent = text;
    return ok;
  } catch {
    where.textContent = "The run does not answer.";
    return false;
  }
}

const BUTTONS = {
  pause: () => control(latest?.run.state === "paused" ? "resume" : "pause"),
  checkpoint: () => control("checkpoint"),
  stop: () => byId("confirm-stop").showModal(),
  "really-stop": () => { byId("confirm-stop").close(); control("stop"); },
  "go-on": () => byId("confirm-stop").close(),
};

function makeSetting(name, { minimum, maximum }) {
  const row = element("form", "", { class: "setting", id: `setting-${name}`, novalidate: "" });
  const input = element("input", "", { id: `value-${name}`, inputmode: "decimal", autocomplete: "off", "aria-describedby": `refused-${name}` });
  const bounds = maximum === null ? `at least ${minimum}` : `${minimum} … ${maximum}`;
  const label = element("label", name.replaceAll("_", " "), { for: `value-${name}`, title: bounds });
  const refused = element("span", "", { id: `refused-${name}`, class: "refused", role: "alert" });
  row.append(label, input, element("button", "Set", { "aria-label": `set ${name}` }), refused);
  row.addEventListener("submit", async (event) => {
    event.preventDefault();
    refused.textContent = "";
    const value = input.value.trim() === "" ? NaN : Number(input.value);
    if (Number.isNaN(value)) refused.textContent = `Enter a number, ${bounds}.`;
    else if (await control(name === "workers" ? "workers" : "set", { [name]: value }, refused)) {
      refused.textContent = "";
      input.blur();
      delete input.dataset.edited;
    }
  });
  input.addEventListener("input", () => { input.dataset.edited = "yes"; });
  return row;
}

function showControls({ run, settings }) {
  const isOver = ENDED.includes(run.state) || run.state === "stopping";
  const isTraining = ["running", "paused"].includes(run.state);
  byId("locked").hidden = mayControl;
  byId("pause").textContent = run.state === "paused" ? "Resume" : "Pause";
  byId("pause").disabled = byId("checkpoint").disabled = !mayControl || !isTraining;
  byId("stop").disabled = !mayControl || isOver;
  for (const [name, setting] of Object.entries(settings)) {
    if (!byId(`setting-${name}`)) byId("settings").append(makeSetting(name, setting));
    const row = byId(`setting-${name}`);
    for (const part of row.querySelectorAll("input, button")) part.disabled = !mayControl || !isTraining;
    const input = row.querySelector("input");
    if (!input.dataset.edited && document.activeElement !== input) input.value = [setting.value].flat().join(", ");
  }
}

// The token in the address becomes a cookie, and is removed from the address bar.
async function openSession() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    await post("session", {}, { Authorization: `Bearer ${token}` });
    history.replaceState(null, "", location.pathname);
  }
  mayControl = (await (await fetch("session")).json()).control;
  if (latest) showControls(latest);
}

// ---- frames, while they are watched ------------------------------------------------------------

let isWatching = false;
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function paint(shape, bytes, at) {
  const [, height, width, depth = 1] = shape;
  const canvas = byId("frames");
  const context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const from = (at * width * height + i) * depth;
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = bytes[from + (depth === 3 ? k : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function inWords(seen) {
  if (Array.isArray(seen)) return seen.map(inWords).join("  ");
  if (seen === null || typeof seen !== "object") return short(seen);
  return Object.entries(seen).map(([name, part]) => `${name}: ${inWords(part)}`).join("\n");
}

async function showFrames({ shape, data, values, seen }) {
  byId("frames").hidden = !data;
  byId("vector").hidden = Boolean(data);
  if (!data) byId("vector").textContent = `Newest observation:\n${inWords(seen ?? values.at(-1))}`;
  const bytes = data ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : null;
  for (let at = 0; data && at < shape[0] && isWatching; at++) {
    paint(shape, bytes, at);
    await pause(FRAME_MS);
  }
}

let watching = Promise.resolve();

function watch() {
  isWatching = !isWatching;
  byId("watch").setAttribute("aria-pressed", String(isWatching));
  watching = watching.then(showWhileWatched);
}

async function showWhileWatched() {
  while (isWatching) {
    try {
      const answer = await fetch("frames");
      const said = await answer.json();
      if (answer.ok) await showFrames(said);
      else [byId("vector").hidden, byId("vector").textContent] = [false, said.error];
    } catch {
      [byId("vector").hidden, byId("vector").textContent] = [false, "The run does not answer."];
    }
    await pause(FRAMES_EVERY_MS);
  }
}

// ---- from the run to the page -------------------------------------------------------------------

function show(status) {
  latest = status;
  marks = status.marks;
  addRow(status);
  addTests(status);
  showHeader(status);
  showHeadlines(status);
  showWaits(status);
  showWorkers(status);
  showLog(status);
  showControls(status);
  updateCharts();
}

async function readHistory() {
  const kept = await (await fetch("history")).json();
  columns = Object.fromEntries(Object.keys(SERIES).map((name) => [name, kept.series[name]]));
  tests = kept.tests;
  marks = kept.marks;
}

async function begin() {
  await readHistory();
  byId("settings").replaceChildren();
  makeCharts();
}

// The last status stays on display, marked as stale; for a run that has ended, it is the final one.
function lose(text) {
  document.body.classList.add("stale");
  for (const part of document.querySelectorAll(".buttons button, #settings input, #settings button")) part.disabled = true;
  const isOver = ENDED.includes(latest?.run.state);
  byId("locked").hidden = isOver;
  if (isOver) {
    byId("progress").textContent += byId("progress").textContent.endsWith(GONE) ? "" : GONE;
    return;
  }
  byId("state").textContent = "connection lost";
  byId("state").className = "pill lost";
  complain(text);
}

// A new run on the same port has a new id: everything is read again. An ended run sends no more events.
async function follow() {
  let run = null;
  for (;;) {
    try {
      await openSession();
      run = await (asksLeft ? ask(run) : listen(run));
      if (ENDED.includes(latest?.run.state)) await untilAnotherRun(run);
    } catch {
      const why = await whyNot();
      if (why || asksLeft) lose(why ?? "The run answers in a form that this page does not understand: reload the page.");
      else asksLeft = ASK_TIMES;
    }
    await pause(asksLeft ? ASK_MS : RETRY_MS);
  }
}

// An EventSource does not tell why it was refused.
async function whyNot() {
  try {
    const answer = await fetch("status");
    if (answer.status === 401) return "Reading this run needs its token: open the address that the program printed.";
    if (answer.ok) return null; // but without events: too many pages are open, or a proxy is in the way
  } catch {
    // unreachable
  }
  return "Connection lost: the program has exited or cannot be reached. Trying again.";
}

let asksLeft = 0;

async function take(status, known) {
  if (status.run.id !== known) await begin();
  else if (columns.time_s.length > MOST_POINTS) await readHistory();
  show(status);
  return status.run.id;
}

async function ask(known) {
  asksLeft -= 1;
  const answer = await fetch("status");
  if (!answer.ok) throw new Error("refused");
  return take(await answer.json(), known);
}

function listen(known) {
  let run = known;
  return new Promise((resolve, reject) => {
    const events = new EventSource("events");
    let queue = Promise.resolve();
    const silence = setTimeout(() => {
      events.close();
      asksLeft = ASK_TIMES;
      resolve(run);
    }, SILENT_MS);
    events.onmessage = ({ data }) => {
      clearTimeout(silence);
      queue = queue.then(async () => {
        const status = JSON.parse(data);
        run = await take(status, run);
        if (ENDED.includes(status.run.state)) {
          events.close();
          resolve(run);
        }
      }).catch(() => { events.close(); reject(new Error("lost")); });
    };
    events.onerror = () => {
      clearTimeout(silence);
      events.close();
      queue.then(() => reject(new Error("lost")));
    };
  });
}

async function untilAnotherRun(run) {
  for (;;) {
    await pause(RETRY_MS);
    const status = await (await fetch("status")).json();
    if (status.run.id !== run) return;
  }
}

for (const [id, act] of Object.entries(BUTTONS)) byId(id).addEventListener("click", act);
byId("watch").addEventListener("click", watch);
addEventListener("hashchange", openSession);
byId("x-axis").addEventListener("change", makeCharts);
addEventListener("resize", fitCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeCharts);
follow();
