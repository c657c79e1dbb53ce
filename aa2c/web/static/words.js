// Numbers as a person reads them, and elements. Only text is ever set, never markup.

export const ENDED = ["finished", "stopped", "failed"]; // states of a run

export const byId = (id) => document.getElementById(id);
const told = (write) => (x) => (x === null || x === undefined ? "–" : write(x)); // null: none yet, or no number
export const whole = told((x) => Math.round(x).toLocaleString("en"));
export const short = told((x) => String(Number(x.toPrecision(4))));
const short3 = (x) => String(Number(x.toPrecision(3)));
export const seconds = told((x) => `${x.toFixed(1)} s`);
export const times = (n) => (n === 1 ? "once" : `${whole(n)} times`);
export const percent = told((x) => `${Math.round(100 * x)} %`);
export const bytes = told((x) => (x < 1e6 ? `${short3(x / 1e3)} kB` : x < 1e9 ? `${short3(x / 1e6)} MB` : `${short3(x / 1e9)} GB`));
export const spread = ({ mean, std, nonfinite }) =>
  nonfinite ? `not finite in ${nonfinite}` : mean === null ? "–" : `${short(mean)} ± ${short(std)}`;

export function duration(time) {
  if (time === null) return "–";
  const [h, m, s] = [time / 3600, (time / 60) % 60, time % 60].map(Math.floor);
  if (h > 48) return `${Math.floor(h / 24).toLocaleString("en")} days`;
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

export function element(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", "", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}

export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
