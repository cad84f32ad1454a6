// The panel of one face: who it is, what can be done about it, and how an enrollment goes.

import { $, act, askName, el, percent, post, probability, put, rename, sentence, toast } from "./dom.js";
import { flatnessOf, live, select, textOf } from "./live.js";

const REASONS = {
  too_small: "too small", blurred: "blurred", turned_too_far: "turned too far", poor_landmarks: "partly hidden",
  too_dark: "too dark", too_bright: "too bright", too_similar: "like one already kept",
  different_person: "somebody else", cut_off: "cut off by the border", low_score: "hardly a face", flat: "a picture",
  no_embedding: "not looked at",
};
const ARCS = { up: 270, right: 0, down: 90, left: 180 };
const GONE_MS = 1000; // a face may be missed in single pictures
let enrollment = null, shown = "", dismissed = 0, target = null, seen = 0, fresh = null;
let failed = "", proposal = ""; // the name of an enrollment that failed is proposed for the face chosen next

const panel = $("panel");

function paint(key, build) {
  if (key === shown) return;
  shown = key;
  const hadFocus = panel.contains(document.activeElement);
  panel.replaceChildren(...[build()].flat().filter(Boolean));
  if (hadFocus) focusFirst();
}

const focusFirst = () => panel.querySelector("input, button.main")?.focus({ preventScroll: true });

export function choose(trackId) {
  if (enrollment && !enrollment.is_running) dismissed = enrollment.number; // what became of it has been read
  if (trackId !== null) [proposal, failed] = [failed, ""];
  update();
  if (trackId === null) return;
  focusFirst();
  $("enroll-name")?.select();
  panel.scrollIntoView({ block: "nearest" }); // on a phone it is below the picture
}

export const close = () => select(null);

export function update() {
  if (enrollment?.outcome === "canceled") dismissed = enrollment.number; // who canceled it knows
  if (enrollment && (enrollment.is_running || enrollment.number !== dismissed)) {
    return enrollment.is_running ? showProgress() : showEnd();
  }
  const face = live.faces().find((one) => one.track_id === live.selected);
  if (face) [target, seen] = [face, performance.now()];
  if (live.selected === null) target = null;
  if (!target) return paint("", () => null);
  showFace(target, performance.now() - seen < GONE_MS);
}

export function showEnrollment(state) {
  enrollment = state;
  if (fresh === null) { // what ended before the page was opened is old news
    fresh = true;
    if (state && !state.is_running) dismissed = state.number;
  }
  update();
}

const head = (title, detail) => [
  el("div", { className: "row", id: "title" },
    el("h2", { className: "one-line" }, title), el("span", { className: "grow" }),
    el("button", { className: "quiet", onclick: close, title: "Close (Esc)", "aria-label": "Close" }, "✕")),
  detail ? el("p", { className: "muted small one-line", id: "detail" }, detail) : null];

function showFace(face, isHere) {
  const quality = `view quality ${percent(face.quality)}`;
  const other = face.runner_up_probability >= 0.01 ? `next: ${face.runner_up} ${probability(face.runner_up_probability)}` : "";
  const detail = isHere ? [quality, flatnessOf(face), other].filter(Boolean).join(" · ")
    : "This face has left the picture; click it again when it is back.";
  const key = ["face", face.track_id, face.state, face.person_id, face.name].join("|");
  paint(key, () => {
    const kind = face.state === "known" ? choices(face.track_id, face.person_id, face.name) : nameForm(face);
    return el("div", { className: "box", id: "face-panel" },
      head(face.state === "undecided" ? "A face" : textOf(face), detail), kind);
  });
  put($("detail"), detail);
  for (const button of panel.querySelectorAll("button[data-live]")) button.disabled = !isHere;
}

function nameForm(face) {
  const isStranger = face.state === "stranger" && face.person_id;
  const before = $("enroll-name"); // drawn anew when more is known of the face: what is typed stays
  const value = before?.dataset.track === String(face.track_id) ? before.value : proposal;
  const input = el("input", { value, "data-track": face.track_id, className: "fill", placeholder: "Name", "aria-label": "Name", maxLength: 200, autocomplete: "off", id: "enroll-name" });
  const start = (event) => { event.preventDefault(); begin(face.track_id, input.value.trim(), "", false); };
  return el("form", { onsubmit: start, className: "row" }, input,
    el("button", { className: "main", type: "submit", id: "enroll-start", "data-live": "" }, "Enroll"),
    isStranger ? el("button", {
      type: "button",
      onclick: () => input.value.trim() ? act("rename", { person_id: face.person_id, name: input.value.trim() }, true) : input.focus(),
    }, "Only give the name") : null,
    isStranger ? el("p", { className: "muted small wide" },
      `Enroll takes a few seconds and keeps good views; the other only names the views of ${face.person_id}.`) : null);
}

function choices(trackId, personId, name, otherName = "") {
  return el("div", { className: "row" },
    el("button", { className: "main", "data-live": "", onclick: () => begin(trackId, "", personId, false) }, `Add views to ${name}`),
    el("button", { onclick: () => rename({ person_id: personId, name }) }, "Rename"),
    el("button", { "data-live": "", onclick: async () => { const text = await askName("Who is it?", otherName, "Enroll"); if (text) begin(trackId, text, "", true); } }, "It is somebody else"));
}

async function begin(trackId, name, personId, isSomebodyElse) {
  dismissed = enrollment?.number ?? 0;
  try {
    await post("enroll", { track_id: trackId, name, person_id: personId, is_somebody_else: isSomebodyElse });
  } catch (error) {
    toast(error.message, null, true);
  }
}

function ring() {
  const arc = (middle) => {
    const point = (angle) => [58 + 46 * Math.cos(angle * Math.PI / 180), 58 + 46 * Math.sin(angle * Math.PI / 180)].map((v) => v.toFixed(1)).join(" ");
    return `M${point(middle - 39)} A46 46 0 0 1 ${point(middle + 39)}`;
  };
  return el("svg:svg", { class: "ring", viewBox: "0 0 116 116", width: 116, height: 116, role: "img", "aria-label": "directions covered" },
    Object.entries(ARCS).map(([name, middle]) => el("svg:path", { d: arc(middle), "data-direction": name }, el("svg:title", {}, name))),
    el("svg:circle", { cx: 58, cy: 58, r: 24, "data-direction": "front" }, el("svg:title", {}, "front")));
}

const reasonsOf = (rejections) => Object.entries(rejections).filter(([, count]) => count)
  .sort((a, b) => b[1] - a[1]).map(([reason, count]) => `${count} × ${REASONS[reason] ?? reason}`).join(", ");

function showProgress() {
  const state = enrollment;
  paint(`progress|${state.number}`, () => el("div", { className: "box", id: "progress" },
    el("h2", { className: "one-line" }, `Enrolling ${state.name}`),
    el("div", { className: "progress" }, ring(), el("div", {},
      el("p", { className: "hint" }), el("div", { className: "bar" }, el("i")),
      el("p", { className: "reasons" }))),
    el("div", { className: "resembles" }),
    el("div", { className: "row" }, el("span", { className: "grow" }),
      el("button", { onclick: () => act("cancel_enrollment", {}) }, "Cancel"))));
  panel.querySelector(".hint").textContent = state.hint || "Thank you, one moment …";
  panel.querySelector(".bar i").style.width = `${100 * Math.min(1, state.views_kept / Math.max(state.wanted_views, 1))}%`;
  const rejected = reasonsOf(state.rejections);
  panel.querySelector(".reasons").textContent =
    `${state.views_kept} of ${state.wanted_views} views kept${rejected ? `; not kept: ${rejected}` : ""}`;
  for (const part of panel.querySelectorAll("[data-direction]")) {
    part.classList.toggle("on", state.coverage.includes(part.getAttribute("data-direction")));
  }
  panel.querySelector(".resembles").textContent =
    state.known_id ? `Looks like ${state.known_name} (${probability(state.known_probability)})` : "";
}

function showEnd() {
  const state = enrollment;
  const isStored = state.outcome === "stored";
  const again = state.known_id && !isStored;
  const rejected = reasonsOf(state.rejections);
  failed = isStored || again ? "" : state.name;
  paint(`end|${state.number}|${state.outcome}`, () => el("div", { className: "box", id: "outcome" },
    head(isStored ? `${state.name} stored` : again ? `Already known as ${state.known_name}` : "Nothing was stored", ""),
    el("div", { className: isStored ? "note good" : "note" }, sentence(state.message),
      rejected ? el("p", {}, `Not kept: ${rejected}.`) : null,
      isStored || again ? null : el("p", {}, "Click the face to try again.")),
    again && state.track_id !== null ? choices(state.track_id, state.known_id, state.known_name, state.name) : null));
}
