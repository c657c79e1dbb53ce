// A video of the newest policy: asked for here, recorded by the evaluator, played and saved here.

import { act, mayControl } from "./controls.js";
import { bytes, byId, duration, element, short, whole } from "./words.js";

let asked = false; // by this page, which then plays it at once
let shown = ""; // which video is here: its run and number
let address = null; // of its blob
const PLAIN = "The evaluator plays an episode for you, at most a minute of it.";
const PAUSED = "Paused: the evaluator rests, too. Resume to record.";
const SAYS = { requested: "Asked for: the evaluator begins soon.", recording: "The evaluator plays and records an episode…" };

export function showVideo({ run, video }) {
  const isBusy = ["requested", "recording"].includes(video?.state);
  const isTraining = ["running", "degraded"].includes(run.state);
  byId("record").disabled = !mayControl() || !isTraining || isBusy;
  byId("record").textContent = isBusy ? "Recording…" : "Record";
  if (isBusy) say(SAYS[video.state]);
  else if (video?.state === "failed") say(`No video: ${video.error}`);
  else if (video?.state === "ready" && keyOf(run, video) !== shown) take(video, run);
  else if (!shown && run.state === "paused") say(PAUSED);
  else if (byId("video-words").textContent === PAUSED) say(PLAIN);
}

const keyOf = (run, video) => `${run.id} ${video.number}`;
const say = (text) => {
  if (byId("video-words").textContent !== text) byId("video-words").textContent = text;
};

// Whole, so that it can be moved to any place, saved, and outlives the program.
async function take(video, run) {
  shown = keyOf(run, video);
  try {
    const answer = await fetch("video");
    if (!answer.ok) throw new Error((await answer.json()).error);
    show(URL.createObjectURL(await answer.blob()), video, run);
  } catch (error) {
    say(`The video was recorded, but cannot be read: ${error.message}`);
  }
}

function show(blob, video, run) {
  if (address) URL.revokeObjectURL(address);
  address = blob;
  const { episode_return: score, length, env_steps: steps, is_cut: isCut } = video;
  const player = byId("video");
  player.src = address;
  player.hidden = false;
  player.setAttribute("aria-label", `an episode of the policy after ${whole(steps)} env steps`);
  say(`Return ${short(score)} in ${whole(length)} env steps${isCut ? ", cut there" : ""}: greedy, the policy after `
    + `${whole(steps)} env steps. ${duration(video.duration_s)}, ${bytes(video.bytes)}. `);
  byId("video-words").append(element("a", "Save", { href: address, download: `${run.name}-${steps}.mp4` }));
  if (asked && !matchMedia("(prefers-reduced-motion: reduce)").matches) player.play().catch(() => {});
  asked = false;
}

byId("video").addEventListener("error", () => {
  byId("video").hidden = true;
  byId("video-words").append(" This browser cannot play H.264: save it, and play it elsewhere.");
});
byId("record").addEventListener("click", async () => {
  asked = true;
  byId("record").disabled = true;
  const { ok, text } = await act("video");
  asked = ok;
  say(text);
});
