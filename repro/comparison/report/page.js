"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { score: data.scores.length ? data.scores[0].name : "", cell: null, system: null };

/* Text goes into the page as text only, never as markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "polygon"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (key === "vars") for (const [name, set] of Object.entries(value)) node.style.setProperty(name, set);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const replace = (id, ...children) => byId(id).replaceChildren(...children);
const rate = (value) => value.toFixed(3);
const span = (low, high) => (low === null || low === undefined ? "" : `${rate(low)}–${rate(high)}`);
const whole = (value) => value.toLocaleString("en");
const small = (value) => (value === 0 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toPrecision(2));
const signed = (value) => (value < 0 ? "−" : "+") + rate(Math.abs(value));
const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());
const digits = (value, score) => value.toFixed(score.sense === "<" ? 1 : 3);
const short = (value) => (value >= 0.995 ? "1.0" : value.toFixed(2).replace(/^0/, ""));
const scoreNamed = (name) => data.scores.find((score) => score.name === name);
const key = (first, second) => (first < second ? `${first},${second}` : `${second},${first}`);
for (const score of data.scores) score.at = new Map(score.cells.map((cell) => [key(cell.first, cell.second), cell]));

/* Where the page stands is in its address: #score=RP&cell=0,1&system=2&theme=dark */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (scoreNamed(given.get("score"))) state.score = given.get("score");
  const places = (given.get("cell") || "").split(",").map(Number);
  const score = scoreNamed(state.score);
  if (given.has("cell") && places.length === 2) {
    const cell = score && score.at.get(key(...places));
    const other = data.scores.find((each) => each.at.has(key(...places)));
    if (cell) state.cell = key(...places);
    else if (other) [state.score, state.cell] = [other.name, key(...places)];
  }
  const system = data.gl.find((row) => String(row.system) === given.get("system"));
  if (system) state.system = system.system;
  if (["light", "dark"].includes(given.get("theme"))) useTheme(given.get("theme"));
}

function writeAddress() {
  const given = new URLSearchParams();
  given.set("score", state.score);
  if (state.cell) given.set("cell", state.cell);
  if (state.system !== null) given.set("system", state.system);
  history.replaceState(null, "", `#${given.toString().replace("%2C", ",")}`);
}

function useTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

/* Images: one sheet a bank, decoded when first needed, drawn tile by tile. */
const sheets = new Map();
function sheet(name) {
  if (!sheets.has(name)) {
    const image = new Image();
    image.src = data.sheets[name].uri;
    sheets.set(name, image.decode().then(() => image));
  }
  return sheets.get(name);
}

function tile(name, row, label) {
  const { columns, cell, rows } = data.sheets[name];
  const [height, width] = data.tile;
  const scale = Math.max(1, Math.round(64 / Math.max(height, width)));
  const canvas = make("canvas", { width, height, role: "img", "aria-label": label, title: label });
  canvas.style.width = `${width * scale}px`;
  canvas.style.height = `${height * scale}px`;
  const place = rows.indexOf(row);
  sheet(name).then((image) => {
    const left = (place % columns) * cell[1];
    const top = Math.floor(place / columns) * cell[0];
    canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
    canvas.dataset.drawn = "1";
  });
  return canvas;
}

function strip(title, names, items, caption) {
  if (!items.length) return [];
  const list = items.map((item) => {
    const tiles = item.tiles.map(([name, row], place) => tile(name, row, [names[place], item.who, item.of].filter(Boolean).join(", ")));
    return make("li", {}, ...tiles, ...caption(item), make("span", {}, item.who), item.of ? make("span", {}, item.of) : null);
  });
  return [make("h4", {}, title), make("ul", { class: "pairs" }, ...list)];
}

/* Drawings */
const line = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}`;

function wilson(count, n) {
  const z = data.z, p = count / n, scale = 1 + (z * z) / n;
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [(p + (z * z) / (2 * n) - half) / scale, (p + (z * z) / (2 * n) + half) / scale];
}

function curves({ thresholds, threshold, own, n, chance, others, label, share }) {
  const [width, height, left, bottom] = [460, 190, 34, 34];
  const first = thresholds[0], last = thresholds[thresholds.length - 1];
  const x = (value) => left + ((value - first) / (last - first)) * (width - left - 8);
  const y = (value) => height - bottom - value * (height - bottom - 10);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${share} by ${label}` });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(make("line", { class: "grid-line", x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (let step = 0; step <= 4; step++) {
    const value = first + ((last - first) * step) / 4;
    svg.append(make("text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, number(value)));
  }
  const points = (counts, total) => counts.map((count, place) => [x(thresholds[place]), y(count / total)]);
  for (const other of others) svg.append(make("path", { class: "other", d: line(points(other.curve, other.n)) }));
  const limits = own.map((count) => wilson(count, n));
  const band = [...limits.map(([, high], place) => [x(thresholds[place]), y(high)]), ...limits.map(([low], place) => [x(thresholds[place]), y(low)]).reverse()];
  svg.append(make("polygon", { class: "band", points: band.map((point) => point.map((each) => each.toFixed(1)).join(",")).join(" ") }));
  if (chance) svg.append(make("path", { class: "chance", d: line(points(chance, n)) }));
  svg.append(make("path", { class: "curve", d: line(points(own, n)) }));
  svg.append(make("line", { class: "limit", x1: x(threshold), x2: x(threshold), y1: y(0), y2: y(1) }));
  svg.append(make("text", { x: x((first + last) / 2), y: height - 2, "text-anchor": "middle" }, label));
  return svg;
}

function interval(rows) {
  const width = 460, x = (value) => 8 + value * (width - 16);
  const svg = make("svg", { viewBox: `0 0 ${width} ${rows.length * 14 + 20}`, width, height: rows.length * 14 + 20, "aria-hidden": "true" });
  for (const value of [0, 0.5, 1]) {
    svg.append(make("line", { class: "grid-line", x1: x(value), x2: x(value), y1: 0, y2: rows.length * 14 + 4 }));
    svg.append(make("text", { x: x(value), y: rows.length * 14 + 17, "text-anchor": "middle" }, String(value)));
  }
  rows.forEach(([value, low, high, chance], place) => {
    const y = place * 14 + 9;
    svg.append(make("line", { class: chance ? "span chance-span" : "span", x1: x(low), x2: x(high), y1: y, y2: y }));
    svg.append(make("circle", { class: chance ? "chance-dot" : "dot", cx: x(value), cy: y, r: 4 }));
  });
  return svg;
}

function table(heads, rows, text = 1) {
  const style = (place) => (place < text ? { class: "text" } : {});
  return make("table", { class: "grid" },
    make("thead", {}, make("tr", {}, ...heads.map((head, place) => make("th", { scope: "col", ...style(place) }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, place) => make("td", style(place), cell))))));
}

const scrolled = (...given) => make("div", { class: "scroll" }, table(...given));

/* The matrix */
function drawMatrix() {
  const score = scoreNamed(state.score);
  if (!score) return;
  const count = data.names.length, wide = count <= 6;
  const longest = Math.max(...data.names.map((name) => name.length));
  const element = byId("matrix");
  element.style.setProperty("--cell", wide ? "96px" : count <= 10 ? "52px" : "34px");
  element.style.setProperty("--size", wide ? "17px" : count <= 10 ? "14px" : "12px");
  element.classList.toggle("upright", longest > (wide ? 13 : count <= 10 ? 6 : 3));
  const selected = (state.cell || "").split(",").map(Number);
  const mark = (place) => ({ "aria-selected": String(state.cell !== null && selected.includes(place)) });
  const head = make("tr", {}, make("th", { "aria-hidden": "true" }));
  data.names.forEach((name, place) => head.append(make("th", { scope: "col", ...mark(place) }, make("span", {}, name))));
  const rows = data.names.map((name, first) => {
    const row = make("tr", {}, make("th", { scope: "row", ...mark(first) }, name));
    data.names.forEach((_, second) => row.append(matrixCell(score, first, second, wide)));
    return row;
  });
  element.setAttribute("aria-label", `${score.title}: ${score.condition}`);
  element.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  byId("condition").textContent = `${score.condition}. ${score.about}`;
  const below = score.controlled ? "Above the diagonal: the systems. Below, in italics: the same systems on shuffled noises (chance)." : "";
  replace("ramp", "0", make("i"), `1 ${score.share}. ${below}`);
  replace("scores", ...data.scores.map((each) => make("button", {
    type: "button", "aria-pressed": String(each.name === state.score),
    on: { click: () => choose(each.name, each.at.has(state.cell) ? state.cell : null) },
  }, each.name)));
}

function matrixCell(score, first, second, wide) {
  const cell = score.at.get(key(first, second));
  if (first === second || !cell || (first > second && !score.controlled)) return make("td");
  const control = first > second;
  const value = control ? cell.control_rate : cell.rate;
  const limits = control ? [cell.control_low, cell.control_high] : [cell.low, cell.high];
  const names = `${data.names[cell.first]} and ${data.names[cell.second]}`;
  const what = control ? `chance, shuffled noises: ${whole(cell.control_count)}` : whole(cell.count);
  const says = `${names}\n${score.name} ${rate(value)}, ${data.percent} interval ${span(...limits)}\n${what} of ${whole(cell.n)}`;
  const dark = document.documentElement.dataset.theme === "dark";
  const button = make("button", {
    type: "button", class: [control ? "control" : "", value > (dark ? 0.45 : 0.55) ? "high" : ""].join(" ").trim() || null,
    "aria-pressed": String(key(first, second) === state.cell && !control), "aria-label": says.replaceAll("\n", ", "),
    "data-cell": `${first},${second}`, vars: { "--v": value },
    on: {
      click: () => choose(score.name, key(first, second)),
      mouseenter: (event) => showTip(says, event.currentTarget), mouseleave: hideTip,
      focus: (event) => showTip(says, event.currentTarget), blur: hideTip, keydown: moveFocus,
    },
  }, wide ? rate(value) : short(value), wide ? make("small", {}, span(...limits)) : null);
  return make("td", {}, button);
}

function moveFocus(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  let [row, column] = event.currentTarget.dataset.cell.split(",").map(Number);
  for (let tries = 0; tries < data.names.length; tries++) {
    row += step[0];
    column += step[1];
    const next = document.querySelector(`[data-cell="${row},${column}"]`);
    if (next) return next.focus();
  }
}

function showTip(text, target) {
  const tip = byId("tip"), box = target.getBoundingClientRect();
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(box.left, window.innerWidth - tip.offsetWidth - 12);
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
}

const hideTip = () => { byId("tip").hidden = true; };

function choose(score, cell) {
  state.score = score;
  state.cell = cell || (scoreNamed(score).cells.length ? key(scoreNamed(score).cells[0].first, scoreNamed(score).cells[0].second) : null);
  writeAddress();
  drawMatrix();
  drawDetail();
}

/* The pairs behind a cell */
function drawDetail() {
  const score = scoreNamed(state.score), cell = score && score.at.get(state.cell);
  if (!cell) return replace("detail", make("p", { class: "faint" }, "Choose a cell to see its pairs."));
  const names = [data.names[cell.first], data.names[cell.second]];
  const rows = [[cell.rate, cell.low, cell.high, false]];
  if (score.controlled) rows.push([cell.control_rate, cell.control_low, cell.control_high, true]);
  const parts = [
    make("h3", {}, `${names[0]} and ${names[1]}`),
    make("div", {}, make("span", { class: "rate" }, rate(cell.rate)), make("span", {}, `${score.name}, ${data.percent} interval ${span(cell.low, cell.high)}, ${whole(cell.count)} of ${whole(cell.n)}`)),
  ];
  if (score.controlled) parts.push(make("p", { class: "faint" }, `Chance (shuffled noises): ${rate(cell.control_rate)}, ${span(cell.control_low, cell.control_high)}, ${whole(cell.control_count)} of ${whole(cell.n)}`));
  parts.push(interval(rows));
  const captions = (item) => [make("b", { class: item.match ? null : "hit" }, `${item.value === null ? "" : digits(item.value, score)}${item.match ? "" : " ✕"}`)];
  const tiles = (pair) => ({ ...pair, tiles: [[`s${cell.first}`, pair.rows[0]], [`s${cell.second}`, pair.rows[1]]] });
  parts.push(make("p", { class: "names" }, `In each pair of images, ${names[0]} is above, ${names[1]} below; ✕ marks what does not count as alike.`));
  parts.push(...strip(score.most, names, cell.most.map(tiles), captions));
  parts.push(...strip(score.least, names, cell.least.map(tiles), captions));
  if (cell.curve) {
    parts.push(make("h4", {}, "By threshold"), curves({
      thresholds: score.thresholds, threshold: score.threshold, own: cell.curve, n: cell.n, chance: cell.control_curve, share: score.share,
      others: score.cells.filter((other) => other !== cell), label: score.axis,
    }));
    parts.push(make("p", { class: "faint" }, `This pair with its ${data.percent} band${cell.control_curve ? "; grey: chance" : ""}; faint: the other pairs; dashed: the threshold.`));
  }
  if (cell.classes.length) {
    parts.push(make("h4", {}, "By class"), scrolled(["class", score.name, `${data.percent} interval`, "count", "chance"], cell.classes.map((row) => [
      String(row.class_name ?? row.class), rate(row.rate), span(row.low, row.high), `${whole(row.count)} of ${whole(row.n)}`,
      row.control_rate === undefined ? "–" : rate(row.control_rate),
    ])));
  }
  parts.push(...testsOf(score, cell));
  replace("detail", ...parts);
}

function testsOf(score, cell) {
  const here = new Set([cell.first, cell.second]);
  const found = score.tests.filter((test) => here.has(test.system) && (here.has(test.first) || here.has(test.second)));
  if (!found.length) return [];
  const rows = found.map((test) => {
    const swap = !here.has(test.first);
    const other = swap ? test.first : test.second;
    const sign = swap ? -1 : 1;
    const limits = swap ? [-test.high, -test.low] : [test.low, test.high];
    const pair = make("button", { type: "button", class: "link", on: { click: () => choose(score.name, key(test.system, other)) } }, `${data.names[test.system]} and ${data.names[other]}`);
    return [pair, signed(sign * test.difference), `${signed(limits[0])} to ${signed(limits[1])}`, small(test.p_value), small(test.p_adjusted)];
  });
  return [make("details", { open: rows.length <= 6 }, make("summary", {}, "Is another pair more or less alike, on the same noises?"),
    scrolled(["against", "difference", `${data.percent} interval`, "p", "adjusted p"], rows),
    make("p", { class: "faint" }, `McNemar's exact test, two-sided; adjusted for all ${whole(score.tests.length)} tests of ${score.name} (Holm).`))];
}

/* Memorisation */
function drawMemorization() {
  if (!data.gl.length) return;
  byId("memorization").hidden = false;
  byId("gl-condition").textContent = data.gl_condition;
  const body = table(["system", "GL", `${data.percent} interval`, "not copied", "training images", "mean nearest", "GL of unseen images", "GL of noise"], data.gl.map((row) => [
    make("button", { type: "button", class: "link", "data-system": row.system, on: { click: () => { state.system = row.system; writeAddress(); drawMemorization(); } } }, data.names[row.system]),
    rate(row.rate), span(row.low, row.high), `${whole(row.count)} of ${whole(row.n)}`, whole(row.train_size), rate(row.mean_nearest),
    ...[row.unseen_rate, row.noise_rate].map((value) => (value === undefined ? "–" : rate(value))),
  ]));
  body.id = "gl";
  byId("gl").replaceWith(body);
  if (state.system === null) state.system = data.gl[0].system;
  const row = data.gl.find((each) => each.system === state.system);
  [...body.tBodies[0].rows].forEach((line, place) => line.setAttribute("aria-selected", String(data.gl[place] === row)));
  const caption = (item) => [make("b", { class: item.copy ? "hit" : null }, item.copy ? `${rate(item.value)} copy` : rate(item.value))];
  const names = [`sample of ${data.names[row.system]}`, "nearest training image"];
  const tiles = (item) => ({ ...item, tiles: [[`s${row.system}`, item.rows[0]], [row.train, item.rows[1]]] });
  replace("nearest",
    make("h3", {}, `${data.names[row.system]} and its training images`),
    make("div", {}, make("span", { class: "rate" }, rate(row.rate)), make("span", {}, `GL, ${data.percent} interval ${span(row.low, row.high)}, ${whole(row.count)} of ${whole(row.n)} are no copy`)),
    interval([[row.rate, row.low, row.high, false]]),
    make("p", { class: "names" }, `In each pair of images, the ${names[0]} is above, its ${names[1]} below.`),
    ...strip("Nearest to a training image", names, row.most.map(tiles), caption),
    ...strip("Farthest from every training image", names, row.least.map(tiles), caption),
    make("h4", {}, "By threshold"),
    curves({ thresholds: row.thresholds, threshold: data.threshold, own: row.curve, n: row.n, chance: null, others: data.gl.filter((other) => other !== row), label: "similarity threshold", share: "share of samples" }));
}

/* Everything else */
function drawValues() {
  if (!data.values.length) return;
  byId("values").hidden = false;
  replace("value-tables", ...data.values.flatMap((score) => {
    const heads = ["", ...data.names, ...(score.train ? ["training images"] : [])];
    const rows = data.names.map((name, first) => [
      make("b", {}, name),
      ...data.names.map((_, second) => number(first > second && score.control ? score.control[first][second] : score.values[first][second])),
      ...(score.train ? [number(score.train[first])] : []),
    ]);
    const below = score.control ? " Below the diagonal: shuffled noises." : "";
    return [make("h4", {}, `${score.name}.${below}`), scrolled(heads, rows)];
  }));
}

function drawBanks() {
  replace("manifests", ...data.banks.map((bank) => {
    const facts = Object.entries(bank.facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    return make("details", {}, make("summary", {}, make("b", {}, bank.name), bank.line ? `  ${bank.line}` : ""),
      make("dl", {}, ...facts), make("pre", { tabindex: "0" }, JSON.stringify(bank.manifest, null, 1)));
  }));
  byId("summary").textContent = data.summary;
  replace("remarks", ...data.remarks.map((remark) => make("li", {}, remark)));
  byId("foot").textContent = data.foot;
}

byId("theme").addEventListener("click", () => {
  useTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  drawMatrix();
});
window.addEventListener("hashchange", () => { readAddress(); drawMatrix(); drawDetail(); drawMemorization(); });
useTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
readAddress();
if (!state.cell && data.scores.length) state.cell = key(data.scores[0].cells[0].first, data.scores[0].cells[0].second);
drawMatrix();
drawDetail();
drawValues();
drawMemorization();
drawBanks();
document.documentElement.dataset.ready = "1";
