// What worker 0 sees, while somebody watches.

import { byId, pause, short } from "./words.js";

const FRAME_MS = 70;
const FRAMES_EVERY_MS = 1000;

let isWatching = false;

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
  if (!isWatching) return;
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
  byId("watch").textContent = isWatching ? "Stop" : "Watch";
  if (isWatching && byId("frames").hidden) byId("vector").textContent = "Loading the newest frames…";
  else if (byId("vector").textContent.startsWith("Loading")) byId("vector").textContent = "Press Watch to see the newest frames.";
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

byId("watch").addEventListener("click", watch);
