// Elements and charts. Text only ever goes in as text: a name that holds HTML is shown as it is.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const at = (id) => document.getElementById(id);

export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`);
export const loss = (value) => (value === null || value === undefined ? "–" : value.toFixed(4));

export function size(count) {
  if (count < 1000) return `${count} B`;
  for (const unit of ["kB", "MB", "GB"]) {
    count /= 1000;
    if (count < 1000 || unit === "GB") return `${count.toFixed(1)} ${unit}`;
  }
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 1) return `${(1000 * value).toFixed(value < 0.01 ? 1 : 0)} ms`;
  return value < 90 ? `${value.toFixed(1)} s` : `${(value / 60).toFixed(1)} min`;
}

const H = 220, R = 12, T = 14, B = 24;

// charts are as wide as the place they stand in, so that their texts are as large as all others
export const room = (id) => Math.max(220, at(id).clientWidth || 560);
const margin = (labels) => 10 + 8 * Math.max(...labels.map((text) => text.length), 2);

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(v);
  return found;
}

// points: [[version, value], …]; the cursor is a version or null
export function curve(points, { width: W, kind, label, format, top, cursor }) {
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label, class: kind });
  if (!points.length) {
    root.append(svg("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "nothing measured yet"));
    return root;
  }
  const values = points.map((p) => p[1]);
  const low = Math.min(...values, kind === "loss" ? 0 : 1), high = top ?? Math.max(...values) * 1.05;
  const first = points[0][0], last = Math.max(points.at(-1)[0], first + 1);
  const base = kind === "loss" ? 0 : Math.max(0, Math.floor(low * 10) / 10);
  const rows = ticks(base, high, 4), L = margin(rows.map(format));
  const x = (v) => L + ((v - first) / (last - first)) * (W - L - R);
  const y = (v) => T + (1 - (v - base) / (high - base || 1)) * (H - T - B);
  for (const v of rows) {
    root.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: y(v), y2: y(v) }));
    root.append(svg("text", { x: L - 6, y: y(v) + 4, "text-anchor": "end" }, format(v)));
  }
  for (const v of ticks(first, last, Math.min(6, W / 70)).filter(Number.isInteger)) {
    root.append(svg("text", { x: x(v), y: H - 7, "text-anchor": "middle" }, String(v)));
  }
  root.append(svg("polyline", { class: "curve", points: points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ") }));
  const marked = cursor === null ? points.at(-1) : points.find((p) => p[0] === cursor);
  if (marked) {
    if (cursor !== null) root.append(svg("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: T, y2: H - B }));
    root.append(svg("circle", { class: "dot", cx: x(marked[0]), cy: y(marked[1]), r: 4 }));
  }
  return root;
}

// counts of a histogram as bars
export function bars(counts, { width, height, label, kind, left, right }) {
  const most = Math.max(...counts, 1), step = width / counts.length;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height + 18}`, role: "img", "aria-label": label });
  root.append(svg("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
  counts.forEach((count, i) => {
    const tall = (count / most) * (height - 6);
    root.append(svg("rect", { class: `bar ${kind}`, x: i * step + 0.5, y: height - tall, width: step - 1, height: tall }));
  });
  root.append(svg("text", { x: 0, y: height + 14 }, left));
  root.append(svg("text", { x: width / 2, y: height + 14, "text-anchor": "middle" }, "0"));
  root.append(svg("text", { x: width, y: height + 14, "text-anchor": "end" }, right));
  return root;
}

// one stacked bar a round
export function stacks(rounds, names, label, width) {
  const height = 120;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height + 18}`, role: "img", "aria-label": label });
  const totals = rounds.map((row) => names.reduce((sum, name) => sum + (row.phases[name] ?? 0), 0));
  const most = Math.max(...totals, 1e-6), marks = ticks(0, most, 3), L = margin(marks.map(seconds));
  const step = Math.min(28, (width - L) / Math.max(rounds.length, 1));
  for (const v of marks) {
    const y = height - (v / most) * (height - 8);
    root.append(svg("line", { class: "axis", x1: L, x2: width, y1: y, y2: y }));
    root.append(svg("text", { x: L - 6, y: y + 4, "text-anchor": "end" }, seconds(v)));
  }
  rounds.forEach((row, i) => {
    let y = height;
    names.forEach((name, k) => {
      const tall = ((row.phases[name] ?? 0) / most) * (height - 8);
      y -= tall;
      root.append(svg("rect", { class: `b${k + 1}`, x: L + i * step + 1, y, width: Math.max(1, step - 2), height: tall }));
    });
  });
  root.append(svg("text", { x: L, y: height + 14 }, "older"));
  root.append(svg("text", { x: L + rounds.length * step, y: height + 14, "text-anchor": "end" }, rounds.length > 3 ? "newest" : ""));
  return root;
}
