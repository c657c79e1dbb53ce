// The dashboard of a run. Data flows one way: /history once, then /events, each a whole status document,
// through `show` into the parts of the page. No state is kept except the series behind the charts, and the
// newest document: everything else is in the next one.

import { readAbout, showBest, showLog } from "./about.js";
import { fitCharts, makeCharts, updateCharts } from "./charts.js";
import { disableControls, newest, openSession, showControls } from "./controls.js";
import "./frames.js";
import {
  complain, showHeader, showHeadlines, showHosts, showWaits, showWarnings, showWorkers,
} from "./parts.js";
import { addStatus, hasTooMany, readHistory } from "./series.js";
import { showVideo } from "./video.js";
import { setView } from "./view.js";
import { byId, ENDED, pause } from "./words.js";

const RETRY_MS = 2000;
const SILENT_MS = 5000; // without a first event: a proxy buffers them
const ASK_MS = 1000; // polling interval if events do not arrive
const ASK_TIMES = 300; // polls before events are tried again
const GONE = " · the program has exited";

function show(status) {
  showControls(status);
  addStatus(status);
  showHeader(status);
  showWarnings(status);
  showHeadlines(status);
  showWaits(status);
  showWorkers(status);
  showHosts(status);
  showVideo(status);
  showBest(status);
  showLog(status);
  updateCharts();
}

async function begin() {
  await Promise.all([readHistory(), readAbout()]);
  byId("settings").replaceChildren();
  setView(null);
  makeCharts();
}

// The last status stays on display, marked as stale, unless the run has ended: then it is the final one.
function lose(text) {
  disableControls();
  const isOver = ENDED.includes(newest()?.run.state);
  document.body.classList.toggle("stale", !isOver);
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
      if (ENDED.includes(newest()?.run.state)) await untilAnotherRun(run);
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
  else if (hasTooMany()) await readHistory();
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

addEventListener("resize", fitCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeCharts);
follow();
