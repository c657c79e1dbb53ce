// Which part of the run the charts show: all of it, or a part that was zoomed into. One for all charts.

import { byId } from "./words.js";

let view = null; // {min, max} on the x axis; null: the whole run
let whole = [0, 1];
let onChange = () => {};

export const onView = (act) => { onChange = act; };
export const setWhole = (range) => { whole = range; };
export const isZoomed = () => view !== null;
export const span = () => (view ? [view.min, view.max] : whole);

export function setView(wanted) {
  view = wanted && wanted.max > wanted.min ? wanted : null;
  for (const id of ["earlier", "later", "whole"]) byId(id).hidden = view === null;
  onChange();
}

function pan(share) {
  if (!view) return;
  const by = share * (view.max - view.min);
  setView({ min: view.min + by, max: view.max + by });
}

// Into the newest half of the run at first, later into the middle of what is shown.
function zoomIn() {
  const [min, max] = span();
  const half = (max - min) / 2;
  setView(view ? { min: min + half / 2, max: max - half / 2 } : { min: min + half, max });
}

// What uPlot asks for: drag to zoom, drag with Shift to pan, double-click for the whole run.
export const cursor = {
  drag: { x: true, y: false, setScale: false },
  points: { size: 6 },
  bind: {
    dblclick: () => () => setView(null),
    mousedown: (plot, _, handle) => (event) => {
      if (event.shiftKey && event.button === 0 && view) startPan(plot, event);
      else if (event.button === 0) handle(event);
    },
  },
};

function startPan(plot, { clientX: from }) {
  const { min, max } = view;
  const perPixel = (max - min) / plot.over.clientWidth;
  const move = ({ clientX }) => {
    const by = (from - clientX) * perPixel;
    setView({ min: min + by, max: max + by });
  };
  document.addEventListener("mousemove", move);
  document.addEventListener("mouseup", () => document.removeEventListener("mousemove", move), { once: true });
}

export function zoomToSelection(plot) {
  const { left, width } = plot.select;
  if (width <= 0) return;
  const [min, max] = [left, left + width].map((x) => plot.posToVal(x, "x"));
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  setView({ min, max });
}

byId("zoom-in").addEventListener("click", zoomIn);
byId("earlier").addEventListener("click", () => pan(-0.5));
byId("later").addEventListener("click", () => pan(0.5));
byId("whole").addEventListener("click", () => setView(null));
