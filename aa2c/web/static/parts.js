// The parts of the page that show a status document and nothing else.

import { byId, bytes, duration, element, ENDED, percent, seconds, short, spread, times, whole } from "./words.js";

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
  byId("seed").textContent = ` · seed ${run.seed}`;
  complain(run.error ?? (run.stall && `The run has stalled: ${run.stall}.`));
}

// A screen reader reads out what is added: not each new number of a warning that is there.
export function showWarnings({ warnings }) {
  const texts = warnings.map(({ text, advice, env_steps: since }) => `Since ${whole(since)} env steps ${text}. ${advice}`);
  byId("warnings").hidden = !texts.length;
  const names = warnings.map(({ name }) => name).join();
  if (byId("warnings").dataset.names === names) {
    [...byId("warnings").children].forEach((item, i) => { if (item.textContent !== texts[i]) item.textContent = texts[i]; });
    return;
  }
  byId("warnings").dataset.names = names;
  byId("warnings").replaceChildren(...texts.map((text) => element("li", text)));
}

export function complain(text) {
  byId("trouble").hidden = !text;
  if (byId("trouble").textContent !== (text ?? "")) byId("trouble").textContent = text ?? "";
}

// An ended run's rates are of all of it: those of its last seconds would contradict its steps and time.
export function showHeadlines({ run, progress, throughput, returns, policy_lag: lag }) {
  const { train, test } = returns;
  const isOver = ENDED.includes(run.state);
  const over = isOver ? ", whole run" : "";
  const rate = (count, now) => (isOver ? count / Math.max(run.uptime_s, 1e-3) : now);
  const numbers = {
    "return, last 100 episodes": spread(train),
    "test, greedy": spread(test.greedy),
    "test, sampled": spread(test.sampled),
    "episodes": whole(progress.episodes),
    [`env steps/s${over}`]: whole(rate(progress.env_steps, throughput.env_steps_per_s)),
    [`updates/s${over}`]: short(rate(progress.updates, throughput.updates_per_s)),
    "policy version": whole(progress.policy_version),
    "policy lag": `${short(lag.mean)} (${lag.min} … ${lag.max})`,
  };
  byId("headlines").replaceChildren(...Object.entries(numbers).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("p", name), element("p", value));
    return pair;
  }));
}

// Waiting is a problem where it makes a bottleneck: the updater's of the workers, and the other way round.
export function showWaits({ throughput, policy_lag: lag }) {
  byId("advice").textContent = throughput.advice;
  const waits = [["updater waits", throughput.updater_wait_share, "workers"], ["workers wait", throughput.worker_wait_share, "updater"]];
  byId("waits").replaceChildren(...waits.map(([name, share, bottleneck]) => {
    const isBad = throughput.bottleneck === bottleneck;
    const row = element("div", "", { class: isBad ? "wait bad" : "wait" });
    row.append(element("span", name), bar(share, name), element("span", percent(share)));
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

function bar(share, name) {
  const track = element("div", "", { class: "track", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": share ?? 0 });
  const filled = element("i");
  filled.style.width = `${100 * (share ?? 0)}%`;
  track.append(filled);
  return track;
}

export function showWorkers({ run, workers, rings, updater, evaluator, orchestrator }) {
  const isOver = ENDED.includes(run.state) || run.state === "stopping"; // then a child that has stopped did as it should
  const isBad = (state) => state === "abandoned" || (state === "stopped" && !isOver);
  byId("workers").replaceChildren(...workers.map((worker, i) => {
    const ring = rings[i];
    const dropped = Object.values(ring.dropped).reduce((a, b) => a + b, 0);
    const row = element("tr");
    const fill = element("td", "");
    fill.append(bar(ring.used / ring.capacity, `ring of worker ${worker.id}`), `${ring.used} of ${ring.capacity}`);
    const cells = [worker.id, worker.state, whole(worker.env_steps_per_s), whole(worker.env_steps), short(worker.policy_lag), seconds(worker.wait_s),
      percent(worker.cpu_share), bytes(worker.rss_bytes), fill, worker.restarts, worker.last_exit ?? "–", dropped];
    row.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", String(cell)))));
    row.children[1].classList.toggle("bad", isBad(worker.state));
    row.lastChild.classList.toggle("bad", dropped > 0);
    return row;
  }));
  const saved = updater.checkpoint_at ? new Date(1000 * updater.checkpoint_at).toLocaleTimeString() : "none yet";
  byId("updater").textContent = `Updater: ${updater.state}, ${updater.threads} update thread${updater.threads > 1 ? "s" : ""}`
    + `${uses(updater)}, last checkpoint ${saved}${ends(updater)}.`;
  byId("evaluator").textContent = `Evaluator: ${evaluator.state}, evaluations: ${whole(evaluator.evaluations)}${uses(evaluator)}${ends(evaluator)}.`;
  byId("orchestrator").textContent = `Orchestrator, with this page${uses(orchestrator)}.`;
  for (const [id, child] of Object.entries({ updater, evaluator })) {
    byId(id).classList.toggle("bad", isBad(child.state));
  }
}

export function showHosts({ hosts = [], engine = null }) {
  byId("hosts-section").hidden = hosts.length === 0;
  byId("hosts").replaceChildren(...hosts.map((host) => {
    const row = element("tr");
    const cells = [host.name, host.address || "–", host.workers, host.state, host.restarts, whole(host.env_steps), host.exchanges_per_s.toFixed(1),
      bytes(host.bytes_per_s), `${host.round_trip_ms.toFixed(1)} ms`];
    row.append(...cells.map((cell) => element("td", String(cell))));
    row.children[3].classList.toggle("bad", ["lost", "stalled"].includes(host.state));
    return row;
  }));
  byId("engine").textContent = engine ? `Engine: ${engine.state}${uses(engine)}${ends(engine)}.` : "";
  byId("engine").classList.toggle("bad", engine !== null && engine.state !== "running");
}

function uses({ cpu_share: cpu, rss_bytes: memory }) {
  return memory === null ? "" : `, ${percent(cpu)} CPU, ${bytes(memory)}`;
}

function ends({ restarts, exits }) {
  const all = Object.entries(exits).map(([how, count]) => `${how} ${times(count)}`);
  return all.length ? `; restarted ${times(restarts)}, after ${all.join(", ")}` : "";
}
