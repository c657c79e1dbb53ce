// The first page: reads /status once a second and shows it. It only ever sets text, never markup.

const REFRESH_MS = 1000;
const byId = (id) => document.getElementById(id);
const whole = (x) => Math.round(x).toLocaleString("en");
const short = (x) => (x === null ? "–" : x.toPrecision(4).replace(/\.?0+$/, ""));

function element(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

const spread = ({ mean, std }) => (mean === null ? "–" : `${short(mean)} ± ${short(std)}`);

function showNumbers({ progress, throughput, returns, losses, policy_lag: lag }) {
  const { train, test } = returns;
  const numbers = {
    "return, last 100 episodes": spread(train),
    "test return, greedy": spread(test.greedy),
    "test return, sampled": spread(test.sampled),
    episodes: whole(progress.episodes),
    "env steps/s": whole(throughput.env_steps_per_s),
    "updates/s": whole(throughput.updates_per_s),
    "policy version": whole(progress.policy_version),
    "policy lag": `${short(lag.mean)} (${lag.min} … ${lag.max})`,
    bottleneck: throughput.bottleneck,
    "policy loss": short(losses.policy),
    "value loss": short(losses.value),
    entropy: short(losses.entropy),
    "gradient norm": short(losses.grad_norm),
    "learning rate": short(losses.learning_rate),
  };
  byId("numbers").replaceChildren(
    ...Object.entries(numbers).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }),
  );
}

function showWorkers({ workers, rings }) {
  byId("workers").replaceChildren(
    ...workers.map((worker, i) => {
      const row = document.createElement("tr");
      const ring = `${rings[i].used} of ${rings[i].capacity}`;
      const cells = [worker.id, worker.state, whole(worker.env_steps_per_s), whole(worker.env_steps),
        `${worker.wait_s.toFixed(1)} s`, worker.restarts, worker.last_exit ?? "–", ring];
      row.append(...cells.map((text) => element("td", text)));
      return row;
    }),
  );
}

function show(status) {
  const { run, progress } = status;
  const done = progress.env_steps / progress.total_env_steps;
  const headline = byId("headline");
  headline.className = run.state;
  headline.textContent = `${run.env}, mode ${run.mode}: ${run.state}, ${whole(progress.env_steps)} of `
    + `${whole(progress.total_env_steps)} env steps, ${whole(run.uptime_s)} s. ${run.error ?? ""}`;
  byId("budget").value = done;
  document.title = `aa2c ${Math.min(100, Math.floor(100 * done))}% ${run.env}`;
  showNumbers(status);
  showWorkers(status);
}

async function refresh() {
  try {
    show(await (await fetch("/status", { cache: "no-store" })).json());
  } catch {
    byId("headline").className = "lost";
    byId("headline").textContent = "Connection lost: the run has ended, or its process has.";
  }
  setTimeout(refresh, REFRESH_MS);
}

refresh();
