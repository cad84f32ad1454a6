// The live picture: frames from one socket, boxes drawn over them, faces as buttons, figures and problems.

import { $, el, note, probability, put } from "./dom.js";

const canvas = $("canvas");
const context = canvas.getContext("2d");
const STALE_MS = 3000; // without a new picture for so long, the last one is not shown as the present
let bitmap = null, faces = [], size = [4, 3], socket = null, wait = 250, staleness = 0;

export const live = { selected: null, faces: () => faces, onSelect() {}, onStatus() {}, onFaces() {} };

export function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { wait = 250; showLink("up", "live"); document.dispatchEvent(new Event("changed")); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? live.onStatus(JSON.parse(data).status) : show(data));
  socket.onclose = () => {
    showLink("down", "no connection");
    markStale();
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, 4000);
  };
}

function showLink(state, text) {
  $("link").className = state;
  $("link").lastChild.textContent = text;
}

function markStale() {
  clearTimeout(staleness);
  $("stage").classList.add("old");
  const isUp = socket.readyState === WebSocket.OPEN;
  $("waiting").textContent = isUp ? "No new pictures" : "No connection to the robot. Trying again …";
  faces = [];
  updateChips();
  draw();
  live.onFaces();
}

async function show(data) {
  const length = new DataView(data).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const next = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
  requestAnimationFrame(() => {
    bitmap?.close();
    bitmap = next;
    if (head.size[0] !== size[0] || head.size[1] !== size[1]) {
      size = head.size;
      $("stage").style.aspectRatio = `${size[0]} / ${size[1]}`;
    }
    faces = head.faces.sort((a, b) => a.box[0] - b.box[0]);
    $("stage").classList.remove("old");
    clearTimeout(staleness);
    staleness = setTimeout(markStale, STALE_MS);
    updateChips();
    draw();
    live.onFaces();
    canvas.dataset.frames = head.number;
    if (socket.readyState === WebSocket.OPEN) socket.send("shown");
  });
}

const COLORS = { known: "#56b4e9", stranger: "#e69f00", undecided: "#e1e1e1" };

// Where the picture lies in the canvas, in CSS pixels: it is never stretched.
function placement() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min(width / size[0], height / size[1]);
  return { scale, left: (width - size[0] * scale) / 2, top: (height - size[1] * scale) / 2 };
}

export function textOf(face) {
  if (face.flatness === "flat") return "a picture of a face";
  if (face.state !== "undecided") return `${face.name || face.person_id || "stranger"}  ${probability(face.probability)}`;
  return "looking …";
}

function draw() {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const { scale, left, top } = placement();
  if (bitmap) context.drawImage(bitmap, left, top, size[0] * scale, size[1] * scale);
  context.font = `600 ${width < 480 ? 12 : 14}px system-ui, 'DejaVu Sans', sans-serif`;
  context.textBaseline = "middle";
  const labels = [];
  for (const face of faces) {
    const [x1, y1, x2, y2] = face.box.map((value, k) => value * scale + (k % 2 ? top : left));
    const color = COLORS[face.state];
    const isChosen = face.track_id === live.selected;
    context.lineJoin = "round";
    context.setLineDash(face.state === "undecided" ? [8, 7] : []);
    for (const [style, line] of [["rgb(10 14 18 / 75%)", isChosen ? 8 : 5], [color, isChosen ? 4 : 2.5]]) {
      context.strokeStyle = style;
      context.lineWidth = line;
      context.beginPath();
      context.roundRect(x1, y1, x2 - x1, y2 - y1, Math.min(12, (x2 - x1) / 8));
      context.stroke();
    }
    context.setLineDash([]);
    const text = `${numberOf(face.track_id)}  ${textOf(face)}`;
    const wide = context.measureText(text).width + 16;
    const x = Math.max(4, Math.min(x1, width - wide - 4));
    const above = y1 - 31, below = Math.min(y2 + 6, height - 30);
    const isCovered = labels.some((one) => Math.abs(one.y - above) < 28 && x < one.x + one.wide && one.x < x + wide);
    const y = above > 4 && !isCovered ? above : below;
    labels.push({ x, y, wide });
    context.fillStyle = "rgb(10 14 18 / 80%)";
    context.beginPath();
    context.roundRect(x, y, wide, 26, 7);
    context.fill();
    context.fillStyle = color;
    context.fillText(text, x + 8, y + 13.5);
  }
}

function faceAt(event) {
  const { scale, left, top } = placement();
  const x = (event.offsetX - left) / scale, y = (event.offsetY - top) / scale, room = 10 / scale;
  const inside = faces.filter(({ box }) => x > box[0] - room && x < box[2] + room && y > box[1] - room && y < box[3] + room);
  return inside.sort((a, b) => area(a) - area(b))[0] ?? null;
}

const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);

canvas.addEventListener("pointermove", (event) => {
  canvas.classList.toggle("over", faceAt(event) !== null);
});
canvas.addEventListener("click", (event) => select(faceAt(event)?.track_id ?? null));
new ResizeObserver(draw).observe(canvas);

export function select(trackId) {
  live.selected = trackId;
  updateChips();
  draw();
  live.onSelect(trackId);
}

// What the box's color and line say, in words.
export const flatnessOf = (face) =>
  ({ flat: "flat", solid: "not flat", unverified: "flatness unknown" })[face.flatness] + (face.flatness_source ? ` by ${face.flatness_source}` : "");
const wordsOf = (face) => `${face.state}, ${flatnessOf(face)}`;

// A button a face, kept as long as its track and in its place: what is to be pressed does not move under the finger.
const chips = new Map();
const numberOf = (trackId) => [...chips.keys()].indexOf(trackId) + 1;
export const trackOf = (number) => [...chips.keys()][number - 1];
const nobody = el("span", {}, "No face in the picture");

function updateChips() {
  const row = $("faces");
  for (const [id, chip] of chips) {
    if (!faces.some((face) => face.track_id === id)) { chip.node.remove(); chips.delete(id); }
  }
  for (const face of faces) {
    let chip = chips.get(face.track_id);
    if (!chip) {
      const key = el("kbd"), text = el("b"), words = el("small");
      const node = el("button", { onclick: () => select(face.track_id) }, key, el("span", {}, text, words));
      chip = { node, key, text, words };
      node.dataset.track = face.track_id;
      chips.set(face.track_id, chip);
      row.append(node);
    }
    put(chip.key, String(numberOf(face.track_id)));
    put(chip.text, textOf(face));
    put(chip.words, wordsOf(face));
    const name = `chip ${face.state}${face.track_id === live.selected ? " selected" : ""}`;
    if (chip.node.className !== name) chip.node.className = name;
  }
  if (faces.length === 0) row.append(nobody);
  else nobody.remove();
}

const figures = new Map();

function figure(name, value, title = "", isWide = false) {
  let dd = figures.get(name);
  if (!dd) {
    dd = el("dd");
    figures.set(name, dd);
    $("figures").append(el("div", { className: isWide ? "wide" : "" }, el("dt", {}, name), dd));
    if (isWide) dd.after(el("dd", { className: "why" }));
  }
  put(dd, value);
  if (dd.title !== title) dd.title = title;
  if (isWide) put(dd.nextSibling, title);
}

let shownProblems = "";

export function showStatus(status) {
  put($("source"), status.source);
  const ms = (value) => (value === null ? "–" : value.toFixed(0));
  figure("Rate", `${status.rate_hz.toFixed(0)} of ${status.received_hz.toFixed(0)} Hz`, "pictures answered, of those received a second");
  figure("Latency, ms", `${ms(status.latency_ms)} / ${ms(status.latency_p95_ms)}`, "median from picture to answer, and 95th percentile");
  figure("Skipped", String(status.dropped), "pictures replaced by a newer one");
  figure("Runs on", status.backend || "unknown", status.backend_reason, true);
  const text = JSON.stringify(status.problems);
  if (text === shownProblems) return;
  shownProblems = text;
  $("problems").replaceChildren(...status.problems.map((problem) => el("li", {}, note(problem))));
}
