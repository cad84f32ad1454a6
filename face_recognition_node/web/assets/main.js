// Puts the page together: tabs, keys, theme, and when to ask for what.

import { $, act, ask, el, post, toast } from "./dom.js";
import * as panel from "./enroll.js";
import { showAccuracy, showGallery, showHistory } from "./gallery.js";
import { connect, live, select, showStatus, trackOf } from "./live.js";
import { markInView, showPeople } from "./people.js";

const EMPTY = { version: -1, people: [], pairs: [], history: [], sessions: [], session: "", gallery: "", operating_point: null };
let overview = EMPTY, current = "people", isAsking = false, isStale = false;

const TABS = {
  people: ["People", () => overview.people.filter((person) => !person.is_stranger).length, () => showPeople(overview, false, drawView)],
  strangers: ["Strangers", () => overview.people.filter((person) => person.is_stranger).length, () => showPeople(overview, true, drawView)],
  history: ["History", () => null, () => showHistory(overview)],
  gallery: ["Gallery", () => null, () => showGallery(overview)],
  accuracy: ["Accuracy", () => null, () => showAccuracy(overview)],
};

function drawTabs() {
  $("tabs").replaceChildren(...Object.entries(TABS).map(([name, [title, count]]) => el("button", {
    role: "tab", "aria-selected": String(name === current), id: `tab-${name}`, tabIndex: name === current ? 0 : -1,
    onclick: () => open(name),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const names = Object.keys(TABS);
      open(names[(names.indexOf(name) + step + names.length) % names.length]);
      $(`tab-${current}`).focus();
    },
  }, title, count() === null ? null : el("span", { className: "count" }, String(count())))));
}

function open(name) {
  current = name;
  drawTabs();
  drawView();
}

let isPressed = false, isLate = false; // a button drawn anew between press and release would not be clicked
document.addEventListener("pointerdown", () => { isPressed = true; }, true);
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => {
  isPressed = false;
  if (isLate) setTimeout(drawView);
}, true);

function drawView() {
  isLate = isPressed;
  if (isLate) return;
  const focus = document.activeElement;
  const [id, place] = [focus?.id, focus?.selectionStart];
  const person = focus?.closest?.("[data-person]")?.dataset.person;
  const nth = person ? [...focus.closest("[data-person]").querySelectorAll("button, input")].indexOf(focus) : -1;
  const typed = [...$("view").querySelectorAll("form input")].map((input) => [input.id, input.value]);
  $("view").replaceChildren(...[TABS[current][2]()].flat(3).filter(Boolean));
  for (const [name, value] of typed) if (name && $(name)) $(name).value = value;
  const again = nth >= 0 ? document.querySelector(`[data-person="${CSS.escape(person)}"]`)?.querySelectorAll("button, input")[nth] : id && $(id);
  if (again && again !== document.activeElement) {
    again.focus({ preventScroll: true });
    if (again.type === "search") again.setSelectionRange(place, place);
  }
  markInView();
}

async function refresh() {
  if (isAsking) { isStale = true; return; }
  isAsking = true;
  try {
    overview = await post("overview");
    drawTabs();
    drawView();
    document.body.dataset.version = overview.version;
  } catch (error) {
    toast(error.message, null, true);
  }
  isAsking = false;
  if (isStale) { isStale = false; refresh(); }
}

live.onStatus = (status) => {
  showStatus(status);
  panel.showEnrollment(status.enrollment);
  if (status.version !== overview.version) refresh();
};
live.onSelect = panel.choose;
live.onFaces = () => { panel.update(); markInView(); };
document.addEventListener("changed", refresh);

const KEYS = {
  "1 … 9": ["choose the face of that number"],
  Esc: ["close the face"],
  "/": ["search", () => { if (!$("search")) open("people"); $("search")?.focus(); }],
  ...Object.fromEntries(Object.entries(TABS).map(([name, [title]]) => [name[0], [title.toLowerCase(), () => open(name)]])),
  u: ["undo", () => act("undo")],
  r: ["redo", () => act("redo")],
  t: ["light or dark", () => turnTheme()],
  "?": ["these keys", () => showKeys()],
};

function showKeys() {
  const list = Object.entries(KEYS).map(([key, [text]]) => el("li", {}, el("span", {}, text), el("kbd", {}, key)));
  ask({ title: "Keys", confirm: "Close", isQuestion: false, content: el("ul", { className: "steps" }, list) });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* a browser that keeps nothing */ }
}
const turnTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

let theme = null;
try { theme = localStorage.getItem("theme"); } catch { /* likewise */ }
document.documentElement.dataset.theme = theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").onclick = turnTheme;
$("help").onclick = showKeys;

document.addEventListener("keydown", (event) => {
  if ($("dialog").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return panel.close();
  if (event.target.closest("input, select, textarea")) return;
  const track = trackOf(event.key);
  const run = track !== undefined ? () => select(track) : KEYS[event.key]?.[1];
  if (!run) return;
  run();
  event.preventDefault();
});

drawTabs();
drawView();
connect();
