// What the owner of a run may do to it. Whether somebody is that, their session says.

import { byId, element, ENDED } from "./words.js";

let isOwner = false;
let latest = null; // status document

async function post(path, body = {}, headers = {}) {
  const answer = await fetch(path, {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers },
  });
  const said = answer.status === 204 ? {} : await answer.json();
  return { ok: answer.ok, text: said.text ?? said.error ?? "" };
}

export async function act(name, body) {
  try {
    return await post(`control/${name}`, body);
  } catch {
    return { ok: false, text: "The run does not answer." };
  }
}

async function control(name, body, where = byId("said")) {
  const { ok, text } = await act(name, body);
  byId("said").textContent = ok ? text : "";
  where.textContent = text;
  return ok;
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

export function showControls(status) {
  latest = status;
  const { run, settings } = status;
  const isOver = ENDED.includes(run.state); // one that is stopping may still be evaluated: Stop skips that
  const isTraining = ["running", "degraded", "paused"].includes(run.state);
  byId("locked").hidden = isOwner;
  byId("pause").textContent = run.state === "paused" ? "Resume" : "Pause";
  byId("pause").disabled = byId("checkpoint").disabled = !isOwner || !isTraining;
  byId("stop").disabled = !isOwner || isOver;
  byId("watch").disabled = isOver;
  for (const [name, setting] of Object.entries(settings)) {
    if (!byId(`setting-${name}`)) byId("settings").append(makeSetting(name, setting));
    const row = byId(`setting-${name}`);
    for (const part of row.querySelectorAll("input, button")) part.disabled = !isOwner || !isTraining;
    const input = row.querySelector("input");
    if (!input.dataset.edited && document.activeElement !== input) input.value = [setting.value].flat().join(", ");
  }
}

// The token in the address becomes a cookie, and is removed from the address bar.
export async function openSession() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    await post("session", {}, { Authorization: `Bearer ${token}` });
    history.replaceState(null, "", location.pathname);
  }
  isOwner = (await (await fetch("session")).json()).control;
  if (latest) showControls(latest);
}

export const newest = () => latest;
export const mayControl = () => isOwner;

export function disableControls() {
  for (const part of document.querySelectorAll("main .buttons button, #record, #watch, #settings input, #settings button")) part.disabled = true;
}

for (const [id, act] of Object.entries(BUTTONS)) byId(id).addEventListener("click", act);
addEventListener("hashchange", openSession);
