// History with undo and redo, sessions, export and import, verification, and the operating point.

import { act, ask, clock, el, note, percent, post, sentence, toast } from "./dom.js";

export function showHistory(overview) {
  const steps = [...overview.history].reverse();
  const last = steps.find((step) => step.is_done), next = overview.history.find((step) => !step.is_done);
  return [
    el("div", { className: "row" },
      el("button", { id: "undo", disabled: !last, title: last ? `Undo: ${last.sentence} (u)` : "", onclick: () => act("undo") }, "↶ Undo"),
      el("button", { id: "redo", disabled: !next, title: next ? `Do again: ${next.sentence} (r)` : "", onclick: () => act("redo") }, "↷ Redo")),
    steps.length ? el("ul", { className: "steps" }, steps.map((step) => el("li", {},
        el("span", { className: step.is_done ? "" : "undone" }, sentence(step.sentence)),
        el("span", { className: "muted small" }, clock(step.made)),
        step.deadline ? el("span", { className: "muted small" }, `can be ${step.is_done ? "undone" : "redone"} until ${clock(step.deadline)}`) : null)))
      : el("div", { className: "box empty" }, "Nothing to undo yet."),
  ];
}

const KINDS = { permanent: "until somebody forgets them", event: "for an event", run: "until the next start" };

export function showGallery(overview) {
  return [
    el("div", { className: "box" }, el("h2", {}, "Sessions"),
      el("p", { className: "muted small" }, "Newcomers are stored under the current session, and can be forgotten together."),
      el("ul", { className: "steps" }, overview.sessions.map((session) => showSession(overview, session))),
      el("div", { className: "row" },
        el("button", { onclick: () => startSession(overview) }, "Start or continue a session"))),
    el("div", { className: "box" }, el("h2", {}, "Files"),
      el("p", { className: "muted small" }, `Gallery: ${overview.gallery}. Files are on the robot, not on this machine.`),
      fileForm("export_people", "Export everybody to", "Export", el("label", { className: "row tight small" }, replaces, "overwrite")),
      fileForm("import_people", "Import from", "Import")),
    el("div", { className: "box" }, el("h2", {}, "Check"),
      el("p", { className: "muted small" }, "Checks the file, its rows, the keys and the index, and looks for views that may show somebody else."),
      el("button", { id: "verify", onclick: verify }, "Check the gallery"),
      el("div", { id: "verification" }, checked)),
  ];
}

const replaces = el("input", { type: "checkbox", id: "overwrite", title: "Replace an older export of that name" });

function fileForm(action, label, text, more = null) {
  const input = el("input", { className: "fill", placeholder: "/home/robot/people.db", "aria-label": label, spellcheck: false, id: `${action}-path` });
  return el("form", { className: "row", onsubmit: (event) => { event.preventDefault(); act(action, { path: input.value.trim(), ...(more && { overwrite: replaces.checked }) }); } },
    input, more, el("button", { type: "submit" }, text));
}

function showSession(overview, session) {
  const members = overview.people.filter((person) => person.session === session.name);
  const ids = members.map((person) => person.person_id), n_strangers = members.filter((person) => person.is_stranger).length;
  const hours = session.time_to_live_s && `newcomers for ${+(session.time_to_live_s / 3600).toFixed(2)} h`;
  const name = session.name || "Default";
  return el("li", {},
    el("span", {}, name, session.name === overview.session ? el("span", { className: "count" }, "current") : null),
    ids.length === 0 ? el("span") : el("button", {
      className: "quiet danger small", onclick: async () => {
        const isSure = await ask({
          title: `Forget all ${ids.length} of “${name}”?`, confirm: "Forget", isDanger: true,
          content: el("p", {}, `${counted(ids.length, n_strangers)}. It can be undone for a while (History).`),
        });
        if (isSure) act("forget", { person_ids: ids }, true);
      },
    }, "Forget them"),
    el("span", { className: "muted small" }, [counted(ids.length, n_strangers), KINDS[session.kind], hours].filter(Boolean).join(", ")));
}

function counted(n, n_strangers) {
  const words = (count, one, many) => (count ? `${count} ${count === 1 ? one : many}` : null);
  return [words(n - n_strangers, "person", "people"), words(n_strangers, "stranger", "strangers")].filter(Boolean).join(" and ") || "nobody";
}

async function startSession(overview) {
  const names = el("datalist", { id: "sessions" }, overview.sessions.map((session) => el("option", { value: session.name })));
  const name = el("input", { placeholder: "Empty: the default session", list: "sessions", maxLength: 200, autocomplete: "off" });
  const kind = el("select", {}, Object.entries(KINDS).map(([value, text]) => el("option", { value }, text)));
  const hours = el("input", { type: "number", min: 0, step: 0.5, value: 0 });
  const result = await ask({
    title: "Session", confirm: "Start",
    content: [names, el("label", { className: "field" }, "Name", name), el("label", { className: "field" }, "Its people are kept", kind),
      el("label", { className: "field" }, "Forget newcomers after … hours (0: no limit)", hours)],
    answer: () => ({ name: name.value.trim(), kind: kind.value, time_to_live_s: 3600 * (Number(hours.value) || 0) }),
  });
  if (result) act("start_session", result);
}

let checked = []; // what the latest check found; it outlives that the view is drawn again

async function verify() {
  const show = (...nodes) => { checked = nodes; document.getElementById("verification")?.replaceChildren(...nodes); };
  show(el("p", { className: "muted" }, "Checking …"));
  try {
    const { is_sound, summary, problems } = await post("verify");
    show(el("p", { className: is_sound && !problems.length ? "note good" : "note" }, `${summary} (${clock(Date.now() / 1000)})`),
      ...problems.map(note));
  } catch (error) {
    show();
    toast(error.message, null, true);
  }
}

const RATES = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];

export function showAccuracy(overview) {
  const point = overview.operating_point, n_people = overview.people.filter((person) => !person.is_stranger).length;
  if (!point) return el("div", { className: "box empty" }, "Not known yet.");
  const near = RATES.reduce((best, rate, k) => (Math.abs(Math.log(rate / point.target)) < Math.abs(Math.log(RATES[best] / point.target)) ? k : best), 0);
  const words = (rate) => `1 in ${Math.round(1 / rate).toLocaleString()}`;
  const shown = el("span", { className: "bignum", id: "target" }, words(point.target));
  const slider = el("input", {
    type: "range", min: 0, max: RATES.length - 1, step: 1, value: near, "aria-label": "Target false-accept rate", id: "knob",
    oninput: (event) => { shown.textContent = words(RATES[event.target.value]); },
    onchange: (event) => act("set_target", { rate: RATES[event.target.value] }),
  });
  const share = (value) => (value > 0 && value < 0.001 ? "< 0.1 %" : percent(value, value < 0.1 ? 1 : 0));
  return [
    el("div", { className: "box" }, el("h2", {}, "How easily names are given"),
      el("p", { className: "muted" }, "At most this share of strangers is ever given a name:"), shown, slider,
      el("div", { className: "row small muted ends" }, el("span", {}, "seldom wrong, more “stranger”"), el("span", { className: "grow" }), el("span", {}, "more names, more mistakes"))),
    el("div", { className: "box" }, el("h2", {}, n_people ? `What to expect with ${n_people} ${n_people === 1 ? "person" : "people"} enrolled` : "What to expect once somebody is enrolled"),
      el("div", { className: "pair" },
        el("div", {}, el("div", { className: "bignum" }, share(point.strangers_named)), "of strangers are given a name"),
        el("div", {}, el("div", { className: "bignum" }, share(point.people_named)), "of enrolled people are named from a single good view; more in a video")),
      point.measured ? el("p", { className: "muted small" }, point.measured) : null),
  ];
}
