// The sections of the page, each made anew from the picture that it shows.

import { at, bars, curve, el, loss, percent, room, seconds, size, stacks } from "./draw.js";

const STATIONS = [
  ["train", "at home, on its own data"],
  ["advertise", "joins with fresh keys"],
  ["share", "deals shares of its secrets"],
  ["mask", "sends its masked update"],
  ["reveal", "signs, then lifts the masks of the sum"],
];
const SIGNS = { in: "✓", awaited: "…", gone: "✕", training: "•" };
const SAY = { in: "has sent", awaited: "is awaited", gone: "is gone", training: "is training" };
export const CELLS = {
  i: ["●", "in the sum", "i"], l: ["◐", "there, but too late", "l"], "-": ["○", "absent", "a"],
  w: ["◇", "kept apart, waited for another cohort", "l"],
  s: ["s", "dropped before its shares", "s"], m: ["m", "dropped before its masked update", "m"],
  a: ["▲", "in an aborted round", "b"], x: ["✕", "missing, round aborted", "x"],
};
const PHASES = [
  ["share", "share"], ["mask", "mask"], ["consistency", "sign"], ["unmask", "reveal"], ["sum", "sum"],
];

function chips(kind, some) {
  if (!some || !some.count) return [];
  const made = some.names.map((name) =>
    el("li", { class: `chip ${kind}`, title: `${name} ${SAY[kind]}` },
      el("span", { "aria-hidden": "true" }, `${SIGNS[kind]} `), name, el("span", { class: "hidden" }, `, ${SAY[kind]}`)));
  if (some.count > some.names.length) made.push(el("li", { class: "chip more" }, `and ${some.count - some.names.length} more`));
  return made;
}

function stations(cohort, training) {
  const here = cohort ? STATIONS.findIndex(([name]) => name === cohort.station) : 0;
  return el("ol", { class: "stations", "aria-label": "Stations of the round" }, ...STATIONS.map(([name, what], i) => {
    const found = cohort?.stations[name] ?? {};
    const inside = name === "train" ? chips("training", training) : ["in", "awaited", "gone"].flatMap((kind) => chips(kind, found[kind]));
    return el("li", {
      class: `station ${i === here ? "now" : i < here ? "past" : ""}`, "aria-current": i === here && cohort ? "step" : null,
      "data-station": name,
    },
    el("h3", {}, el("span", { class: "nr" }, `${i + 1} `), name), el("p", { class: "what" }, what),
    el("ul", { class: "chips", "aria-label": `Members at ${name}` }, ...inside));
  }));
}

export function round(live, state) {
  const parts = (live.cohorts.length ? live.cohorts : [null]).map((cohort, i) => {
    const say = el("p", { class: "say" });
    if (cohort) {
      const few = Math.max(0, cohort.needed - cohort.sent);
      const wait = cohort.waiting_for.count ? `, waiting for ${cohort.waiting_for.names.slice(0, 6).join(", ")}${cohort.waiting_for.count > 6 ? " …" : ""}` : "";
      say.append(
        el("strong", {}, `${cohort.round ? `Round ${cohort.round}` : "An open cohort"}: ${cohort.phase}`),
        el("span", {}, `${cohort.sent} in${few ? `, at least ${few} more needed` : ""}${wait}`),
        el("span", {
          class: "left", "data-until": live.zero + cohort.deadline * 1000,
          "data-after": cohort.phase === "advertise" ? "open until enough members are in" : "the deadline is over",
        }));
    } else {
      say.append(el("strong", {}, live.over ? "Training is over." : live.stopping ? "The aggregator is stopping." : "No round is open: members are training, resting or away."));
    }
    // when training is over nobody is at any station, and who went has done its part
    if (live.over && !cohort) return el("div", { class: "cohort" }, say);
    return el("div", { class: "cohort" }, say, stations(cohort, i === 0 ? live.training : { names: [], count: 0 }));
  });
  at("cohorts").replaceChildren(...parts);
  at("stuck").hidden = !live.stuck;
  at("stuck").textContent = live.stuck ? `Stuck: ${live.stuck}.` : "";
  at("left-out").replaceChildren(...leftOut(live));
  at("away").hidden = live.over;
  const away = state.members.filter((_, i) => live.members[i] === "a"), never = state.members.filter((_, i) => live.members[i] === "n");
  const some = (names) => names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");
  at("away").textContent = [away.length && `Away: ${some(away)}.`, never.length && `Not seen since the aggregator was started: ${some(never)}.`].filter(Boolean).join(" ");
}

// names that there is room for, and how many more there are
const named = ({ names, count }) => names.join(", ") + (count > names.length ? ` and ${count - names.length} more` : "");

function leftOut(live) {
  const line = (kind, title, ...text) => el("li", { class: kind }, el("strong", {}, `${title}: `), ...text);
  const more = ({ named: shown, count }, kind, title) => (count > shown.length ? [line(kind, title, `${count - shown.length} more`)] : []);
  const kept = live.kept_out.named.map((one) => line("out", "Kept out",
    `${one.name}, since round ${one.round} (${when(one.since)}): ${one.reason}. Find out why, then let it back in: `,
    el("code", {}, `choral readmit FOLDER ${one.name}`), ", with the aggregator’s folder."));
  const found = [...kept, ...more(live.kept_out, "out", "Kept out")];
  if (live.over) return found;
  for (const { apart } of live.cohorts) {
    found.push(...apart.named.map((one) => line("apart", "Kept apart", `${one.name} waits for another cohort: ${one.why}.`)), ...more(apart, "apart", "Kept apart"));
  }
  const { spent, pause } = live.resting;
  if (spent.count) found.push(line("spent", "Resting", `${named(spent)}: all that may be sent in this task is sent.`));
  if (pause.count) found.push(line("pause", "Resting", `${named(pause)}: waiting for a changed model, or for the time to send from this one again.`));
  return found;
}

const on = (members, examples) => (members === null ? "–" : `${Math.round(examples)} examples of ${members} members`);

export function figures(state, live) {
  const last = state.curve.at(-1);
  const entry = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, more)));
  at("figures").replaceChildren(
    entry("Model version", String(live.version), `of ${state.rounds}${live.over ? ", training is over" : ""}`),
    entry("Accuracy", percent(last?.[1]), last ? `of version ${last[0]}, held-out data of its members` : "not measured yet"),
    entry("Best so far", state.best ? percent(state.best.accuracy) : "–", state.best ? `version ${state.best.version}, loss ${loss(state.best.loss)}, on ${on(state.best.members, state.best.examples)}` : "no two versions were measured by the same members"),
    entry("Members", live.over ? `${live.enrolled}` : `${live.connected}`, live.over ? "enrolled; they may leave" : `connected, of ${live.enrolled} enrolled`));
}

export function curves(state, cursor) {
  at("learning").hidden = !state.curve.length;
  const draw = (id, k, kind, format, top) => {
    const points = state.curve.filter((p) => p[k] !== null).map((p) => [p[0], p[k]]);
    const last = points.at(-1);
    const label = last ? `${kind} by version, from ${format(points[0][1])} at version ${points[0][0]} to ${format(last[1])} at version ${last[0]}` : `${kind}: nothing measured yet`;
    at(id).replaceChildren(curve(points, { width: room(id), kind, label, format, top, cursor }));
  };
  draw("accuracy", 1, "accuracy", (v) => `${Math.round(1000 * v) / 10}%`, 1);
  draw("loss", 2, "loss", (v) => String(Math.round(v * 1000) / 1000));
  const found = state.curve.find((p) => p[0] === cursor) ?? state.curve.at(-1);
  at("reading").textContent = found ? `version ${found[0]}: ${percent(found[1])} right, loss ${loss(found[2])}` : "";
}

export function grid(state) {
  const head = el("tr", {}, el("th", { scope: "col" }, "Member"), ...state.grid.map((row) =>
    el("td", { title: `round ${row.id}` }, row.version === null ? el("span", { class: "hidden" }, "aborted") : row.version % 5 === 0 || state.grid.length < 16 ? String(row.version) : el("span", { class: "hidden" }, String(row.version)))));
  const rows = state.members.map((name, i) => el("tr", {}, el("th", { scope: "row", title: name }, name), ...state.grid.map((row) => {
    const [sign, what, kind] = CELLS[row.cells[i]] ?? ["?", "unknown", "a"];
    const where = row.version === null ? `aborted round ${row.id}` : `version ${row.version}`;
    return el("td", { class: `c-${kind}`, title: `${name}, ${where}: ${what}` }, el("span", { role: "img", "aria-label": what }, sign));
  })));
  const box = at("grid").parentElement, newest = box.scrollLeft + box.clientWidth >= box.scrollWidth - 2;
  at("grid").replaceChildren(el("caption", { class: "hidden" }, "Members by round, oldest round first"), el("thead", {}, head), el("tbody", {}, ...rows));
  at("legend").hidden = box.hidden = !state.grid.length;
  if (newest) box.scrollLeft = box.scrollWidth;
  at("legend").replaceChildren(...Object.values(CELLS).map(([sign, what, kind]) => el("li", {}, el("span", { class: `c-${kind}`, "aria-hidden": "true" }, sign), ` ${what}`)));
  at("unnamed").textContent = state.unnamed ? `${state.unnamed} more members are not shown by name.` : state.grid.length ? "" : "No round has ended yet.";
  at("aborts").replaceChildren(...state.grid.filter((row) => row.state === "aborted").slice(-8).reverse().map((row) => el("li", {},
    `Round ${row.id}, from version ${row.base}, in phase ${row.phase ?? "?"}: ${row.reason ?? "no reason kept"}`,
    row.missing.length ? `; missing: ${row.missing.join(", ")}` : "", row.culprits.length ? `; accused: ${row.culprits.join(", ")}` : "")));
}

const median = (values) => { const v = [...values].sort((a, b) => a - b); return v.length ? v[v.length >> 1] : null; };

export function costs(state) {
  const done = state.grid.filter((row) => row.state === "done");
  at("cost").hidden = !done.length;
  if (!done.length) return;
  const names = PHASES.map(([name]) => name);
  at("times").replaceChildren(stacks(done, names, `Seconds by phase of the last ${done.length} rounds, without the wait for members to join`, room("times")));
  const line = (name, label, k) => el("tr", {},
    el("th", { scope: "row" }, k ? svgSwatch(k) : null, label),
    el("td", { class: "n" }, seconds(median(done.map((row) => row.phases[name]).filter((v) => v !== undefined)))),
    el("td", { class: "n" }, done.length ? size(median(done.map((row) => row.in[name] ?? 0))) : "–"),
    el("td", { class: "n" }, done.length ? size(median(done.map((row) => row.out[name] ?? 0))) : "–"));
  at("costs").replaceChildren(
    el("caption", { class: "hidden" }, "Medians of the last rounds"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Phase, median"), ...["time", "bytes in", "bytes out"].map((t) => el("th", { scope: "col", class: "n" }, t)))),
    el("tbody", {}, line("advertise", "advertise (joining)", 0), ...PHASES.map(([name, label], i) => line(name, label, i + 1))));
}

function svgSwatch(k) {
  const box = el("span", { class: "swatch", "aria-hidden": "true" });
  const ns = "http://www.w3.org/2000/svg", root = document.createElementNS(ns, "svg"), rect = document.createElementNS(ns, "rect");
  root.setAttribute("viewBox", "0 0 10 10");
  rect.setAttribute("class", `b${k}`); rect.setAttribute("width", "10"); rect.setAttribute("height", "10");
  root.append(rect); box.append(root);
  return box;
}

// with few numbers a bar is mostly chance: fewer and wider ones
function merged(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  while (counts.length > 8 && total / counts.length < 40) counts = counts.filter((_, i) => i % 2 === 0).map((c, i) => c + counts[2 * i + 1]);
  return counts;
}

export function saw(state) {
  at("seen").hidden = !state.saw;
  if (!state.saw) return;
  const alone = innerWidth <= 760; // one above the other, as style.css has it
  const width = alone ? room("saw") : (room("saw") - 36) / 3, height = alone ? 120 : 200;
  const { sum, close_up: near, version, survivors } = state.saw, masked = merged(state.saw.masked);
  at("saw-text").textContent = `Round of version ${version}: the numbers of one member’s masked update are spread evenly, whatever it holds; only the sum over ${survivors} members has a shape.`;
  const flat = Math.min(...masked) / Math.max(...masked, 1);
  at("saw").replaceChildren(
    el("figure", {}, el("figcaption", {}, "One masked update, as it arrived"), bars(masked, { width, height, kind: "", left: "−2³¹", right: "2³¹", label: `Histogram of one masked vector over the whole ring: flat, the lowest bar is ${percent(flat)} of the highest` })),
    el("figure", {}, el("figcaption", {}, "The sum, on the same scale"), bars(sum, { width, height, kind: "sum", left: "−2³¹", right: "2³¹", label: "Histogram of the sum over the whole ring: all of it near zero, not flat" })),
    el("figure", {}, el("figcaption", {}, "The sum, from near"), bars(near, { width, height, kind: "sum", left: "least", right: "most", label: "Histogram of the sum over the range that it uses" })));
}

// what was found by model: the table is made anew with every version
const verdicts = new Map();

function verdict(line) {
  const [kind, text] = verdicts.get(line.model) ?? ["", ""];
  return el("span", { role: "status", class: kind, "data-model": line.model }, text);
}

async function check(line) {
  const tell = (kind, text) => {
    verdicts.set(line.model, [kind, text]);
    document.querySelectorAll(`[data-model="${CSS.escape(line.model)}"]`).forEach((old) => old.replaceWith(verdict(line)));
  };
  tell("", " …");
  try {
    if (!globalThis.crypto?.subtle) throw new Error("needs https or localhost");
    const answer = await fetch(`models/${line.version}`);
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await answer.arrayBuffer()));
    const good = [...digest].map((b) => b.toString(16).padStart(2, "0")).join("") === line.model;
    tell(good ? "good" : "bad", good ? " ✓ matches" : " ✕ DIFFERS");
  } catch (error) {
    tell("", ` ${error.message}`);
  }
}

export function logLine(line) {
  const button = el("button", { type: "button", "aria-label": `Check the model of version ${line.version}` }, "Check");
  button.addEventListener("click", () => check(line));
  const cell = (i, ...inside) => el("td", { class: COLUMNS[i][1], "data-label": COLUMNS[i][0] }, ...inside);
  return el("tr", { "data-version": line.version },
    cell(0, String(line.version), line.best ? el("span", { class: "best" }, "★ best") : null),
    cell(1, percent(line.accuracy)),
    cell(2, loss(line.loss)),
    cell(3, on(line.measured_by, line.measured_on)),
    cell(4, line.made === null ? "–" : when(line.made)),
    cell(5, line.version ? String(line.survivors) : "–"),
    cell(6, line.weight === null ? "–" : String(line.weight)),
    cell(7, el("code", { title: line.model }, line.model.slice(0, 12), "…")),
    cell(8, el("code", { title: line.record }, line.record.slice(0, 8), "…")),
    cell(9, el("a", { href: `models/${line.version}`, download: "", "aria-label": `Download version ${line.version}` }, "Download")),
    cell(10, button, verdict(line)));
}

const COLUMNS = [
  ["Version", "version"], ["Right", "n"], ["Loss", "n"], ["Measured on", "broad"], ["Made", "broad"], ["Members", "n"], ["Trained on", "n"],
  ["SHA-256", ""], ["Record", ""], ["Model", "broad"], ["Digest", "broad"],
];

function when(seconds) {
  const two = (n) => String(n).padStart(2, "0"), d = new Date(1000 * seconds);
  return `${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function log(lines) {
  at("log").replaceChildren(
    el("caption", { class: "hidden" }, "Model versions, newest first"),
    el("thead", {}, el("tr", {}, ...COLUMNS.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
    el("tbody", {}, ...lines.map(logLine)));
  at("older").hidden = !lines.length || lines.at(-1).version === 0;
}

// a table that is wider than its place says so
export function hints() {
  for (const box of document.querySelectorAll(".scroll")) {
    const hint = box.nextElementSibling;
    if (hint?.classList.contains("hint")) hint.hidden = box.scrollWidth <= box.clientWidth + 1;
  }
}

export function trust(state) {
  const s = state.security;
  const entry = (name, text) => el("div", {}, el("dt", {}, name), el("dd", {}, text));
  at("trust").replaceChildren(
    entry(`Must stay to the end: ${s.quorum} of ${s.n}`, `${s.n > s.quorum ? `Up to ${s.n - s.quorum} of a full cohort may drop.` : "Nobody may drop; in a federation of four, one may."} That many, because no cohort is smaller than ${s.minimum} and ${s.t} must reveal.`),
    entry(`Threshold t = ${s.t}`, `So many of a cohort of ${s.n} can lift the masks of a sum together, and no fewer.`),
    entry(`Tolerated c = ${s.c}`, `So many members may work together with the aggregator; at least ${s.t - s.c} honest members are in every sum.`),
    entry(`Smallest cohort: ${s.minimum}`, "Each member insists on its own; this is the aggregator’s."),
    entry(`Ring: ${s.bits}-bit numbers in 2³²`, `Updates are clipped at ±${s.clip}; ${s.largest_cohort} of them cannot wrap. ${s.dimension} parameters.`),
    entry(`Error of a mean: at most ${s.error_bound.toExponential(1)}`, "By rounding, for each number, when all have the capped weight."),
    entry(`Sealing: ${s.sealing}`, s.max_staleness ? `A cohort may start from a version up to ${s.max_staleness} old.` : "All of a cohort start from the newest version."),
    entry("Task", state.task));
  at("warning").hidden = !s.warning;
  at("warning").textContent = s.warning ?? "";
  at("foot").textContent = `Choral ${state.choral}. ${state.model.name} with ${state.model.features} inputs and ${state.model.classes} classes, rule ${state.rule}.`;
}
