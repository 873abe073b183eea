// Listens to the aggregator and hands each picture to the sections. Survives a restart of the aggregator.

import { at } from "./draw.js";
import * as parts from "./parts.js";

let state = null, live = null, heard = 0, source = null, timer = null, wait = 500;
let cursor = null, older = [];

function say(kind, mark, text) {
  const line = at("line");
  if (line.dataset.text === text) return;
  line.dataset.text = text;
  line.className = `line ${kind}`;
  line.querySelector(".mark").textContent = mark;
  line.querySelector(".text").textContent = text;
}

function show(what) {
  if (!state || !live) return;
  if (what === "state") {
    document.title = `${state.federation}: version ${state.version} · Choral`;
    at("federation").textContent = state.federation;
    const slider = at("version"), versions = state.curve.map((p) => p[0]);
    if (versions.length) {
      slider.min = versions[0];
      slider.max = versions.at(-1);
      if (cursor === null) slider.value = slider.max;
    }
    parts.curves(state, cursor);
    parts.grid(state);
    parts.costs(state);
    parts.saw(state);
    parts.trust(state);
    drawLog();
  }
  parts.figures(state, live);
  parts.round(live, state);
  parts.hints();
  tick();
}

function drawLog() {
  const focus = document.activeElement?.getAttribute("aria-label");
  const known = new Set(state.log.map((line) => line.version));
  parts.log([...state.log, ...older.filter((line) => !known.has(line.version))]);
  if (focus) document.querySelector(`#log [aria-label="${CSS.escape(focus)}"]`)?.focus();
}

function tick() {
  for (const left of document.querySelectorAll("[data-until]")) {
    const full = Math.max(0, Math.ceil((Number(left.dataset.until) - performance.now()) / 1000));
    const time = full < 90 ? `${full} s` : `${Math.ceil(full / 60)} min`;
    left.textContent = full ? `${time} left to the deadline` : left.dataset.after;
  }
}

function connect() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource("v1/events");
  heard = performance.now();
  const take = (name, put) => source.addEventListener(name, (event) => {
    heard = performance.now();
    wait = 500;
    put(event);
    say("live", "●", "live");
  });
  take("state", (event) => { state = JSON.parse(event.data); show("state"); });
  take("live", (event) => { const first = !live; live = JSON.parse(event.data); live.zero = performance.now() - live.clock * 1000; show(first ? "state" : "live"); });
  take("beat", () => {});
  source.addEventListener("error", () => {
    say("lost", "▲", "the aggregator does not answer, trying again …");
    // the browser tries again by itself after a broken line, but not after a refusal
    if (source.readyState === EventSource.CLOSED) again();
  });
}

function again() {
  clearTimeout(timer);
  timer = setTimeout(connect, wait);
  wait = Math.min(10000, wait * 1.7);
}

at("version").addEventListener("input", (event) => {
  const wanted = Number(event.target.value);
  const near = state.curve.reduce((a, b) => (Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a));
  cursor = near[0] === state.curve.at(-1)[0] ? null : near[0];
  parts.curves(state, cursor);
});

at("older").addEventListener("click", async () => {
  const lines = [...state.log, ...older], last = Math.min(...lines.map((line) => line.version));
  const answer = await fetch(`v1/versions?before=${last}`);
  if (answer.ok) older.push(...await answer.json());
  drawLog();
});

let resized = null;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => show("state"), 150);
});

setInterval(() => {
  tick();
  if (performance.now() - heard > 40000) { heard = performance.now(); say("lost", "▲", "nothing heard for 40 s, connecting again …"); again(); }
}, 500);
connect();
