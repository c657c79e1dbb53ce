// The run itself: best scores, options beside those of the recipe, commands, the log of all levels.

import { setHints } from "./charts.js";
import { byId, duration, element, short, whole } from "./words.js";

const BEST = { train: "mean of 100 training episodes", greedy: "test, greedy", sampled: "test, sampled" };
const LOG_EVERY_MS = 2000;

let readAt = 0;

export async function readAbout() {
  const { dir, recipe, options, commands, readings } = await (await fetch("about")).json();
  byId("where").textContent = dir;
  byId("commands").replaceChildren(...Object.entries(commands).map(([name, command]) => {
    const row = element("p", "", { class: "command" });
    const code = element("code", command);
    const copy = element("button", "Copy", { type: "button", "aria-label": `copy the command: ${name}` });
    copy.addEventListener("click", () => copyText(code, copy));
    row.append(element("span", name), code, copy);
    return row;
  }));
  const different = options.filter((option) => option.recipe !== null);
  byId("recipe").textContent = different.length
    ? `${different.length} options differ from the nearest recipe, ${recipe}:`
    : `All options are those of the recipe ${recipe}.`;
  byId("different").replaceChildren(...different.map(optionRow));
  byId("options").replaceChildren(...options.map(optionRow));
  readAt = 0;
  setHints(readings);
}

function optionRow({ name, help, value, recipe }) {
  const row = element("tr", "", recipe === null ? {} : { class: "differs" });
  row.append(element("th", name, { scope: "row", title: help }), element("td", value), element("td", recipe === null ? "" : `≠ ${recipe}`));
  return row;
}

// Where the clipboard may not be written, as without TLS, the command is selected instead.
async function copyText(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
}

export function showBest({ best }) {
  byId("best").replaceChildren(...Object.entries(BEST).map(([kind, name]) => {
    const pair = element("div");
    const found = best[kind];
    const where = found ? ` after ${whole(found.env_steps)} env steps, ${duration(found.time_s)}` : "none yet";
    const value = element("dd");
    value.append(element("b", found ? short(found.mean) : ""), where);
    pair.append(element("dt", name), value);
    return pair;
  }));
}

export function showLog({ log }) {
  if (byId("log-level").value === "warnings") showLines(log, "No warnings.");
  else if (Date.now() - readAt > LOG_EVERY_MS) readLog();
}

async function readLog() {
  readAt = Date.now();
  try {
    const { lines } = await (await fetch("log")).json();
    if (byId("log-level").value === "all") showLines(lines, "Nothing yet.");
  } catch {
    // the last lines stay; that the run is lost the page says elsewhere
  }
}

let newest = [];

function showLines(lines, nothing) {
  if (byId("log-level").value === "warnings") newest = lines;
  const shown = lines.length ? [...lines].reverse() : [{ time: "", level: "", text: nothing }];
  byId("log").replaceChildren(...shown.map(({ time, level, process, text }) => {
    const line = element("li", time ? `${new Date(time).toLocaleTimeString()} ` : "");
    line.append(element("b", level, { class: level }), `${process ? ` ${process}:` : ""} ${text}`);
    return line;
  }));
}

byId("log-level").addEventListener("change", () => {
  if (byId("log-level").value === "all") readLog();
  else showLines(newest, "No warnings.");
});
