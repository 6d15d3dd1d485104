"use strict";
const $ = (id) => document.getElementById(id);
const A = JSON.parse($("account").textContent);
const unbase = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const bytes = unbase(A.bytes), bits = A.bits ? unbase(A.bits) : null;
const hex = (n, width = 0) => "0x" + n.toString(16).padStart(width, "0");
const make = (tag, text, cls) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
};

// Spans and areas follow one another without a gap, so their sizes say where they are.
const starts = (sizes) => { const out = new Float64Array(sizes.length + 1); sizes.forEach((s, i) => (out[i + 1] = out[i] + s)); return out; };
const S = A.spans, spanStart = starts(S.size), areaStart = starts(A.areas.map((a) => a[0]));
const after = (sorted, x) => { // the last index whose start is at or before x
  let lo = 0, hi = sorted.length - 1;
  while (lo < hi) { const mid = (lo + hi + 1) >> 1; if (sorted[mid] <= x) lo = mid; else hi = mid - 1; }
  return lo;
};
const spanAt = (at) => Math.min(after(spanStart, at), S.size.length - 1);
const areaAt = (at) => Math.min(after(areaStart, at), A.areas.length - 1);
const path = (i) => A.parents[S.parent[i]] + A.leaves[S.leaf[i]];
const rule = (i) => A.rules[S.rule[i]];
const names = new Map(A.marks);
const recordStart = new Float64Array(S.size.length); // a field has the name of its record, whose first field has it
for (let i = 0; i < S.size.length; i++) {
  const same = i > 0 && S.parent[i] === S.parent[i - 1] && A.parents[S.parent[i]].includes("[");
  recordStart[i] = same ? recordStart[i - 1] : spanStart[i];
}
const labelOf = (i) => (A.kinds[A.areas[areaAt(spanStart[i])][2]][0] === "code" ? "" : names.get(spanStart[i]) || (A.leaves[S.leaf[i]].includes("[") ? "" : names.get(recordStart[i])) || "");
const codeStart = Float64Array.from(A.code, (c) => c[0]);
const forcedEdge = starts(A.forced), isForced = (at) => A.forced.length > 0 && at < forcedEdge[A.forced.length] && after(forcedEdge, at) % 2 === 1;
const instructionAt = (at) => {
  if (!codeStart.length) return -1;
  const i = after(codeStart, at);
  return at >= codeStart[i] && at < codeStart[i] + A.code[i][1] ? i : -1;
};
function value(i) {
  const from = spanStart[i], size = S.size[i];
  if (!S.number[i]) return preview(from, size);
  let n = 0n;
  for (let k = 0; k < size; k++) n |= BigInt(bytes[from + k] || 0) << BigInt(8 * (A.order === "big" ? size - 1 - k : k));
  const words = A.words[S.word[i]];
  return n + (n > 9n ? " (0x" + n.toString(16) + ")" : "") + (words ? ": " + words : "");
}
function preview(from, size) {
  const part = bytes.subarray(from, from + Math.min(size, 48));
  if (!part.length) return size + " bytes";
  if (part.every((b) => b === 0)) return size > 48 ? "48 zero bytes ..." : size + " zero bytes";
  const text = Array.from(part, (b) => (b === 0 ? "\u00b7" : b > 31 && b < 127 ? String.fromCharCode(b) : null));
  const more = size > part.length ? " ..." : "";
  if (text.filter((c) => c !== null).length === part.length) return '"' + text.join("") + '"' + more;
  return Array.from(part.subarray(0, 16), (b) => b.toString(16).padStart(2, "0")).join(" ") + (size > 16 ? " ..." : "");
}

// The map: one pixel a cell, scaled by the browser. A cell is one byte, or several of a very long file.
const cells = $("cells"), marks = $("marks"), unit = A.unit, count = Math.max(1, Math.ceil(A.size / unit));
const columns = count <= 4096 ? 64 : count <= 65536 ? 128 : 256, rowsInMap = Math.ceil(count / columns);
cells.width = columns; cells.height = rowsInMap;
const image = cells.getContext("2d").createImageData(columns, rowsInMap);
const rgb = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
const kindColour = A.kinds.map((k) => rgb(k[1])), shownKinds = new Set(A.kinds.keys());
const mix = (a, b, t) => a.map((x, k) => Math.round(x + (b[k] - x) * t));
const heat = Array.from({ length: 256 }, (_, i) => {
  const t = i / 255, stops = A.colours.heat.map(rgb), at = t * 4, k = Math.min(3, Math.floor(at));
  return mix(stops[k], stops[k + 1], at - k);
});
const classOf = (b) => (b === 0 ? 0 : b === 255 ? 4 : b < 32 ? 2 : b < 127 ? 1 : 3);
const classColours = ["#3b3f46", "#5fb05f", "#3f7fd9", "#b05fa0", "#e8e8e8"].map(rgb), classNames = ["00", "text", "01 to 1f", "80 to fe", "ff"];
const entropyOf = (() => {
  const window = 256, known = new Map();
  return (at) => {
    const w = Math.floor(at / window);
    if (!known.has(w)) {
      const part = bytes.subarray(w * window, (w + 1) * window), counts = new Uint16Array(256);
      let h = 0;
      for (const b of part) counts[b]++;
      for (const c of counts) if (c) h -= (c / part.length) * Math.log2(c / part.length);
      known.set(w, h);
    }
    return known.get(w);
  };
})();
const views = {
  kind: ["kind of field", null, (at, span, area) => (shownKinds.has(A.areas[area][2]) ? (S.source[span] === 2 ? mix(kindColour[A.areas[area][2]], [34, 38, 44], 0.12) : kindColour[A.areas[area][2]]) : [34, 38, 44])],
};
if (A.forced.length) views.forced = ["forced or free", [[A.colours.forced, "one choice only"], [A.colours.free, "free to choose"], [A.colours.unreached, "not reached"]], (at) => rgb(A.colours[at >= forcedEdge[A.forced.length] ? "unreached" : isForced(at) ? "forced" : "free"])];
if (bits) views.bits = ["bits a byte, by the model", [0, 1, 2, 4, 8, 12].map((b) => [b, b + " bits"]), (at) => heat[Math.min(255, Math.round(bits[at] / 16 * 255 / 12))]];
if (A.whole) {
  views.classes = ["class of byte", classNames.map((n, i) => [classColours[i], n]), (at) => classColours[classOf(bytes[at])]];
  views.entropy = ["entropy of 256 bytes", [0, 2, 4, 6, 8].map((b) => [b, b + " bits a byte"]), (at) => heat[Math.round(entropyOf(at) / 8 * 255)]];
}
let view = "kind";
function paint() {
  const colour = views[view][2], out = image.data;
  let span = 0, area = 0, op = A.code.length ? 0 : -1;
  for (let c = 0; c < count; c++) {
    const at = c * unit;
    while (span < S.size.length - 1 && spanStart[span + 1] <= at) span++;
    while (area < A.areas.length - 1 && areaStart[area + 1] <= at) area++;
    let [r, g, b] = A.size ? colour(at, span, area) : [34, 38, 44];
    if (A.refusal && A.refusal.offset >= spanStart[span] && A.refusal.offset < spanStart[span + 1]) [r, g, b] = rgb(A.colours.refused);
    else if (view === "kind") {
      while (op < A.code.length - 1 && codeStart[op + 1] <= at) op++;
      const inCode = op >= 0 && at >= codeStart[op] && at < codeStart[op] + A.code[op][1];
      if ((inCode ? op : span) % 2) [r, g, b] = mix([r, g, b], [255, 255, 255], 0.2);
      if (bytes[at] === 0) [r, g, b] = mix([r, g, b], [34, 38, 44], 0.35);
    }
    out.set([r, g, b, 255], 4 * c);
  }
  cells.getContext("2d").putImageData(image, 0, 0);
}

// The place that is shown, in every panel at once.
let here = A.refusal && A.refusal.offset < A.size ? A.refusal.offset : 0, held = false;
function show(at, scroll) {
  if (!A.size) return;
  here = Math.max(0, Math.min(A.size - 1, at));
  const span = spanAt(here), area = A.areas[areaAt(here)], from = spanStart[span], to = spanStart[span + 1];
  const facts = [
    ["offset", here + " (" + hex(here) + ")"], ["field", path(span)], ["bytes", from === to - 1 ? hex(from) : hex(from) + " to " + hex(to - 1) + ", " + (to - from)],
    ["value", value(span)], ["rule", rule(span) || (S.source[span] === 1 ? "any bytes" : "none: named by a tolerant reader")],
    ["area", area[1] + (area[3] ? ", " + area[3] : "") + " (" + A.kinds[area[2]][0] + ")"],
  ];
  if (labelOf(span)) facts.splice(2, 0, ["name", labelOf(span)]);
  if (A.forced.length && here < forcedEdge[A.forced.length]) facts.push(["choice", isForced(here) ? "this byte was forced" : "this byte was free to choose"]);
  if (bits) facts.push(["model", (bits[here] / 16).toFixed(2) + " bits"]);
  const instruction = instructionAt(here);
  if (instruction >= 0) facts.push(["instruction", A.code[instruction][2]]);
  if (A.refusal && A.refusal.offset >= from && A.refusal.offset < to) facts.push(["refused", A.refusal.field + ": " + A.refusal.rule]);
  $("details").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  showBytes(from, to);
  showCode(instruction);
  outline(from, to);
  cells.setAttribute("aria-label", "Map of the file. Byte " + here + ": " + path(span) + ", " + value(span));
  if (scroll) {
    const cell = $("plane").clientWidth / columns, y = Math.floor(here / unit / columns) * cell, plane = $("plane");
    if (y < plane.scrollTop || y > plane.scrollTop + plane.clientHeight - 2 * cell) plane.scrollTop = y - plane.clientHeight / 2;
  }
  return facts;
}
function showBytes(from, to) {
  const first = Math.max(0, (Math.floor(here / 16) - 4) * 16), lines = [];
  for (let row = first; row < Math.min(A.size, first + 144); row += 16) {
    lines.push(make("span", row.toString(16).padStart(8, "0") + "  ", "soft"));
    let text = "";
    for (let at = row; at < row + 16; at++) {
      const there = at < bytes.length;
      const cls = at === here ? "here" : at >= from && at < to ? "field" : undefined;
      lines.push(make("span", there ? bytes[at].toString(16).padStart(2, "0") : "  ", there ? cls : undefined), document.createTextNode(" "));
      text += !there ? " " : bytes[at] > 31 && bytes[at] < 127 ? String.fromCharCode(bytes[at]) : ".";
    }
    lines.push(make("span", " " + text + "\n", "soft"));
  }
  $("bytes").replaceChildren(...lines);
}
function showCode(instruction) {
  $("code-title").hidden = $("code").hidden = !A.code.length;
  if (!A.code.length) return;
  const middle = instruction >= 0 ? instruction : after(codeStart, here), lines = [];
  for (let i = Math.max(0, middle - 4); i < Math.min(A.code.length, middle + 9); i++) {
    const [at, size, text] = A.code[i], name = names.get(at);
    if (name) lines.push(make("span", name + ":\n", "soft"));
    const raw = Array.from(bytes.subarray(at, at + size), (b) => b.toString(16).padStart(2, "0")).join(" ");
    lines.push(make("span", at.toString(16).padStart(8, "0") + "  " + raw.padEnd(24) + "  ", "soft"), make("span", text, i === instruction ? "here" : undefined), document.createTextNode("\n"));
  }
  $("code").replaceChildren(...lines);
}
function outline(from, to) {
  const scale = Math.max(3, Math.round(768 / columns)), pen = marks.getContext("2d");
  marks.width = columns * scale; marks.height = Math.min(rowsInMap * scale, 32000);
  const draw = (start, end, colour, grow) => {
    pen.strokeStyle = colour; pen.lineWidth = grow;
    let first = Math.floor(start / unit), last = Math.floor((end - 1) / unit);
    if (Math.floor(last / columns) - Math.floor(first / columns) > 4) { // long: one box around its rows
      pen.strokeRect(0, Math.floor(first / columns) * scale, columns * scale, (Math.floor(last / columns) - Math.floor(first / columns) + 1) * scale);
      return;
    }
    for (; first <= last; first = (Math.floor(first / columns) + 1) * columns) {
      const stop = Math.min(last, (Math.floor(first / columns) + 1) * columns - 1);
      pen.strokeRect((first % columns) * scale, Math.floor(first / columns) * scale, (stop - first + 1) * scale, scale);
    }
  };
  draw(from, to, "#ffffff", 2);
  draw(here, here + 1, "#00e5ff", 2);
}

// The list of fields: only the rows in sight are in the page.
const ROW = 24;
let matches = Array.from(S.size.keys()), chosen = -1;
function filter() {
  const wanted = $("find").value.trim().toLowerCase(), number = /^(0x[0-9a-f]+|\d+)$/.test(wanted) ? Number(wanted) : NaN;
  matches = [];
  for (let i = 0; i < S.size.length; i++) {
    if (!shownKinds.has(A.areas[areaAt(spanStart[i])][2])) continue;
    const inside = number >= spanStart[i] && number < spanStart[i + 1];
    if (!wanted || inside || (path(i) + " " + labelOf(i) + " " + A.areas[areaAt(spanStart[i])][1] + " " + rule(i) + " " + value(i)).toLowerCase().includes(wanted)) matches.push(i);
  }
  $("found").textContent = matches.length.toLocaleString() + " of " + S.size.length.toLocaleString() + " fields";
  $("spacer").style.height = matches.length * ROW + "px";
  $("list").scrollTop = 0; chosen = -1;
  fill();
}
function fill() {
  const first = Math.max(0, Math.floor($("list").scrollTop / ROW) - 5), rows = [];
  for (let m = first; m < Math.min(matches.length, first + 40); m++) {
    const i = matches[m], row = make("div", undefined, "row"), area = A.areas[areaAt(spanStart[i])];
    row.id = "row" + m; row.setAttribute("role", "option");
    row.setAttribute("aria-setsize", matches.length); row.setAttribute("aria-posinset", m + 1);
    row.setAttribute("aria-selected", m === chosen);
    const name = make("span"), chip = make("span", undefined, "chip"), label = labelOf(i);
    chip.style.background = A.kinds[area[2]][1];
    name.append(chip, path(i) + (label ? "  " + label : ""));
    row.append(make("span", hex(spanStart[i], 6)), make("span", String(S.size[i])), name, make("span", value(i)), make("span", rule(i)));
    row.addEventListener("click", () => choose(m));
    rows.push(row);
  }
  $("rows").style.top = first * ROW + "px";
  $("rows").replaceChildren(...rows);
}
function choose(m) {
  if (!matches.length) return;
  chosen = Math.max(0, Math.min(matches.length - 1, m));
  const list = $("list");
  if (chosen * ROW < list.scrollTop) list.scrollTop = chosen * ROW;
  if ((chosen + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (chosen + 1) * ROW - list.clientHeight;
  fill();
  list.setAttribute("aria-activedescendant", "row" + chosen);
  held = true;
  show(spanStart[matches[chosen]], true);
}

function legend() {
  const present = new Set(A.areas.map((a) => a[2])), entries = [];
  if (view === "kind") {
    for (const k of present) {
      const item = make("li"), button = make("button", undefined), chip = make("span", undefined, "chip");
      chip.style.background = A.kinds[k][1];
      button.type = "button"; button.append(chip, A.kinds[k][0]);
      button.setAttribute("aria-pressed", shownKinds.has(k));
      button.addEventListener("click", () => { if (!shownKinds.delete(k)) shownKinds.add(k); button.setAttribute("aria-pressed", shownKinds.has(k)); paint(); filter(); });
      item.append(button); entries.push(item);
    }
  } else for (const [colour, text] of views[view][1]) {
    const item = make("li"), chip = make("span", undefined, "chip");
    const c = typeof colour === "number" ? heat[Math.round(colour / (view === "bits" ? 12 : 8) * 255)] : colour;
    chip.style.background = typeof c === "string" ? c : "rgb(" + c + ")";
    item.append(chip, " " + text); entries.push(item);
  }
  $("legend").replaceChildren(...entries);
}

$("name").textContent = A.name;
$("what").textContent = A.what + ", " + A.size.toLocaleString() + " bytes" + (A.format ? "; held to " + A.format + " at level " + A.level : "");
if (A.refusal) {
  $("refusal").hidden = false;
  $("refusal").textContent = "Refused at byte " + A.refusal.offset + " (" + hex(A.refusal.offset) + "), " + A.refusal.field + ": " + A.refusal.rule + ". What follows is a tolerant reader's account.";
  $("refusal").addEventListener("click", () => { held = true; show(A.refusal.offset, true); });
}
$("notes").append(...A.notes.map((n) => make("li", n)));
$("scale").textContent = unit === 1 ? columns + " bytes a row" : unit + " bytes a cell, " + columns + " cells a row";
for (const [key, [title]] of Object.entries(views)) { const option = make("option", title); option.value = key; $("view").append(option); }
$("view").addEventListener("change", () => { view = $("view").value; legend(); paint(); });
$("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
const placeOf = (event) => {
  const box = cells.getBoundingClientRect(), cell = box.width / columns;
  const x = Math.floor((event.clientX - box.left) / cell), y = Math.floor((event.clientY - box.top) / cell);
  return x < 0 || x >= columns ? -1 : Math.min((y * columns + x) * unit, A.size - 1);
};
cells.addEventListener("mousemove", (event) => {
  const at = placeOf(event), tip = $("tip");
  if (at < 0 || !A.size) return;
  const span = spanAt(at), name = labelOf(span);
  tip.textContent = hex(at) + "  " + path(span) + (name ? "  " + name : "") + "\n" + value(span) + (rule(span) ? "\n" + rule(span) : "");
  tip.hidden = false;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
  if (!held) show(at);
});
cells.addEventListener("mouseleave", () => ($("tip").hidden = true));
cells.addEventListener("click", (event) => { held = !held; show(placeOf(event)); });
cells.addEventListener("keydown", (event) => {
  const row = columns * unit, area = areaAt(here);
  const to = { ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - row, ArrowDown: here + row, Home: 0, End: A.size - 1,
    PageDown: areaStart[Math.min(area + 1, A.areas.length - 1)], PageUp: here > areaStart[area] ? areaStart[area] : areaStart[Math.max(area - 1, 0)] }[event.key];
  if (event.key === "Enter") held = !held;
  if (to === undefined) return;
  event.preventDefault();
  held = true;
  show(to, true);
});
$("list").addEventListener("scroll", fill);
$("list").addEventListener("keydown", (event) => {
  const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + 20, PageUp: chosen - 20, Home: 0, End: matches.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  choose(to);
});
let typing = 0;
$("find").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
legend(); paint(); filter(); show(here, true);
