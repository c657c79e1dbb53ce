// The parts of the page that show a status document and nothing else.

import { byId, duration, element, percent, seconds, short, spread, times, whole } from "./words.js";

export function showHeader({ run, progress }) {
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

export function complain(text) {
  byId("trouble").hidden = !text;
  if (byId("trouble").textContent !== (text ?? "")) byId("trouble").textContent = text ?? "";
}

export function showHeadlines({ progress, throughput, returns, policy_lag: lag }) {
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

export function showWaits({ throughput, policy_lag: lag }) {
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

export function showWorkers({ workers, rings, updater, evaluator }) {
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

export function showLog({ log }) {
  const lines = log.length ? [...log].reverse() : [{ time: "", level: "", text: "None." }];
  byId("log").replaceChildren(...lines.map(({ time, level, text }) => {
    const line = element("li", time ? `${new Date(time).toLocaleTimeString()} ` : "");
    line.append(element("b", level, { class: level }), ` ${text}`);
    return line;
  }));
}
