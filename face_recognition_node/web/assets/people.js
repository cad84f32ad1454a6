// People and strangers as cards: rename, merge, split, forget; pairs that may be one.

import { act, ago, ask, colorOf, el, initials, labelOf, percent, post, probability, rename, toast } from "./dom.js";
import { live } from "./live.js";

const chosen = new Set();
let filter = "";

export function showPeople(overview, isStrangers, redraw) {
  const all = overview.people.filter((person) => person.is_stranger === isStrangers);
  for (const id of chosen) if (!overview.people.some((person) => person.person_id === id)) chosen.delete(id);
  const found = all.filter((person) => labelOf(person).toLowerCase().includes(filter.toLowerCase()))
    .sort((a, b) => (isStrangers ? (b.last_seen ?? b.created) - (a.last_seen ?? a.created) : labelOf(a).localeCompare(labelOf(b))));
  const picked = overview.people.filter((person) => chosen.has(person.person_id));
  const search = el("input", {
    id: "search", type: "search", className: "fill", placeholder: `Search ${isStrangers ? "strangers" : "people"}  ( / )`, value: filter,
    "aria-label": "Search", oninput: (event) => { filter = event.target.value; redraw(); },
  });
  const tools = el("div", { className: "row", id: "tools" }, search,
    el("button", { disabled: picked.length < 2, id: "merge", title: "Choose two cards that show one person", onclick: () => merge(picked) },
      picked.length < 2 ? "Merge" : `Merge ${picked.length}`));
  return [
    overview.pairs.map((pair) => showPair(overview, pair, isStrangers)),
    all.length ? tools : null,
    found.length ? el("div", { className: "cards" }, found.map((person) => card(overview, person, redraw)))
      : el("div", { className: "box empty" }, all.length ? "Nobody fits the search." : isStrangers
        ? "No strangers. Somebody unknown who stays in view for a while appears here."
        : "Nobody is enrolled yet. Click a face in the picture."),
  ];
}

// A kept crop; whatever lies below shows where it cannot be opened.
const picture = (template) => el("img", { src: `/crop/${template}`, alt: "", width: 44, height: 44, onerror: (event) => event.target.remove() });

function card(overview, person, redraw) {
  const label = labelOf(person), id = person.person_id;
  const facts = [
    `${person.n_templates} view${person.n_templates === 1 ? "" : "s"}${person.n_adapted ? ` (${person.n_adapted} learned)` : ""}`,
    person.session || null, person.last_seen ? `seen ${ago(person.last_seen)}` : null,
  ].filter(Boolean).join(" · ");
  const button = (text, run, kind = "") => el("button", { className: kind, onclick: run }, text);
  return el("article", { className: chosen.has(id) ? "box card chosen" : "box card", "data-person": id },
    el("div", { className: "face", style: { background: person.is_stranger ? "var(--undecided)" : colorOf(id) }, "aria-hidden": "true" },
      person.is_stranger ? "?" : initials(label), person.picture === null ? null : picture(person.picture)),
    el("div", { className: "name one-line", title: id }, label),
    el("div", { className: "row tight" }, el("span", { className: "here", "data-here": id }, "in view"),
      el("input", {
        type: "checkbox", checked: chosen.has(id), "aria-label": `Choose ${label}`, title: "Choose for merging",
        onchange: (event) => { if (event.target.checked) chosen.add(id); else chosen.delete(id); redraw(); },
      })),
    el("div", { className: "facts" }, facts),
    el("div", { className: "row tight acts" },
      button(person.is_stranger ? "Give a name" : "Rename", () => rename(person)),
      button("Views", () => split(person)),
      button("Forget", () => act("forget", { person_ids: [id] }, true)),
      button("Forget for good", async () => {
        const isSure = await ask({
          title: `Forget ${label} for good?`, confirm: "Forget for good", isDanger: true,
          content: el("p", {}, `${person.n_templates} views are destroyed at once and cannot be brought back.`),
        });
        if (isSure) act("forget", { person_ids: [id], is_final: true });
      }, "danger")));
}

function showPair(overview, pair, isStrangers) {
  const of = (id) => overview.people.find((person) => person.person_id === id);
  const first = of(pair.first_id), second = of(pair.second_id);
  if (!first || !second || second.is_stranger !== isStrangers) return null;
  return el("div", { className: "note" },
    el("b", {}, `${labelOf(first)} and ${labelOf(second)} may be one person`),
    el("div", { className: "row" }, el("span", { className: "muted" }, probability(pair.probability)),
      el("button", { onclick: () => act("merge", { keep_id: pair.first_id, other_ids: [pair.second_id] }, true) }, "Merge")));
}

async function merge(picked) {
  const keep = el("select", {}, picked.map((person) => el("option", { value: person.person_id }, labelOf(person))));
  const named = picked.find((person) => !person.is_stranger);
  if (named) keep.value = named.person_id;
  const id = await ask({
    title: `Merge ${picked.length} entries into one person`, confirm: "Merge",
    content: [el("p", { className: "muted" }, "Choose only entries that show one person. It can be undone."),
      el("label", { className: "field" }, "Who stays", keep)],
    answer: () => keep.value,
  });
  if (!id) return;
  const others = picked.map((person) => person.person_id).filter((one) => one !== id);
  if (await act("merge", { keep_id: id, other_ids: others }, true)) chosen.clear();
}

const ORIGINS = { enrolled: "enrolled", adapted: "learned", imported: "imported" };

async function split(person) {
  let views;
  try { views = await post("views", { person_id: person.person_id }); } catch (error) { return toast(error.message, null, true); }
  const boxes = views.map((view) => el("input", { type: "checkbox", value: view.template_id }));
  const name = el("input", { placeholder: "Empty: a stranger without a name", maxLength: 200, autocomplete: "off" });
  const side = ({ yaw, pitch }) => [Math.abs(yaw) < 14 ? "frontal" : yaw < 0 ? "to the left" : "to the right",
    Math.abs(pitch) < 12 ? null : pitch > 0 ? "up" : "down"].filter(Boolean).join(", ");
  const result = await ask({
    title: `Views of ${labelOf(person)}`, confirm: "Split off the chosen",
    content: [el("p", { className: "muted" }, `Choose those that show somebody else; they become a person of their own.${person.picture === null ? " Their pictures are not kept (gallery.keep_crops)." : ""}`),
      el("div", { className: "list" }, views.map((view, k) => el("label", {}, boxes[k],
        person.picture === null ? null : picture(view.template_id), el("span", {}, `View ${view.template_id}: ${ORIGINS[view.provenance]}, ${side(view)}, quality ${percent(view.quality)}${view.is_set_aside ? ", set aside" : ""}`),
        el("span", { className: "grow" }), el("span", { className: "muted small" }, ago(view.created))))),
      el("label", { className: "field" }, "Name of the other person", name)],
    answer: () => ({ ids: boxes.filter((box) => box.checked).map((box) => Number(box.value)), name: name.value.trim() }),
  });
  if (result?.ids.length) act("split", { template_ids: result.ids, name: result.name }, true);
}

export function markInView() {
  const here = new Set(live.faces().map((face) => face.person_id));
  for (const mark of document.querySelectorAll("[data-here]")) mark.classList.toggle("is", here.has(mark.dataset.here));
}
