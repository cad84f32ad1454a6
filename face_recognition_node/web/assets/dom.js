// What every part of the page needs: elements, requests, messages, questions, words for times and shares.
// Texts of people and of the robot enter the page as text nodes only: nothing is ever parsed as HTML.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node && !tag.startsWith("svg:") && key !== "list" && key !== "role") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export async function post(name, body = {}) {
  let answer;
  try {
    const response = await fetch(`/api/${name}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const text = await response.text();
    try { answer = JSON.parse(text); } catch { answer = { error: text || response.statusText }; }
    if (!response.ok && !answer.error) answer.error = response.statusText;
  } catch {
    answer = { error: "The robot does not answer." };
  }
  if (answer.error) throw new Error(answer.error);
  return answer;
}

// Do something and say what came of it; resolves to whether it worked.
export async function act(name, body, undo = false) {
  try {
    const { message } = await post(name, body);
    for (const old of document.querySelectorAll(".toast.undo")) old.remove(); // it would undo another change now
    toast(message, undo ? { label: "Undo", run: () => act("undo", {}) } : null);
    document.dispatchEvent(new Event("changed"));
    return true;
  } catch (error) {
    toast(error.message, null, true);
    return false;
  }
}

export function toast(text, action = null, isBad = false) {
  const close = () => note.remove();
  const kind = `toast${isBad ? " bad" : ""}${action ? " undo" : ""}`;
  const note = el("div", { className: kind, title: "Click to close", onclick: close }, el("span", {}, sentence(text)));
  if (action) note.append(el("button", { onclick: action.run }, action.label));
  $("toasts").append(note);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(close, isBad ? 9000 : 6000);
}

// Ask in a dialog; resolves to what `answer()` says, or null. The form's content comes from `content`.
export function ask({ title, content = [], confirm = "OK", isDanger = false, isQuestion = true, answer = () => true }) {
  const dialog = $("dialog");
  return new Promise((resolve) => {
    let result = null;
    const form = el("form", { method: "dialog", onsubmit: () => { result = answer(); } },
      el("h2", {}, title), content,
      el("div", { className: "row foot" },
        isQuestion ? el("button", { type: "button", onclick: () => dialog.close() }, "Cancel") : "",
        el("button", { className: isDanger ? "main danger" : "main", type: "submit" }, confirm)));
    dialog.replaceChildren(form);
    dialog.onclose = () => { dialog.replaceChildren(); resolve(result); };
    dialog.showModal();
    const first = form.querySelector("input, select") ?? form.querySelector("button");
    first.focus();
    if (first.select) first.select();
  });
}

export async function askName(title, value = "", confirm = "Save") {
  const input = el("input", { value, className: "fill", maxLength: 200, required: true, autocomplete: "off" });
  return ask({ title, confirm, content: el("label", { className: "field" }, "Name", input), answer: () => input.value.trim() });
}

export async function rename(person) {
  const name = await askName(person.is_stranger ? "Who is it?" : `Rename ${labelOf(person)}`, person.name);
  if (name) act("rename", { person_id: person.person_id, name }, true);
}

export const note = ({ what, cure, is_error }) =>
  el("div", { className: is_error ? "note error" : "note" }, el("b", {}, what), cure ? el("p", {}, cure) : null);

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const probability = (value) => `${Math.min(Math.floor(100 * value), 99)} %`;

export function ago(seconds) {
  if (!seconds) return "never";
  const past = Date.now() / 1000 - seconds;
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(1000 * seconds).toLocaleDateString();
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function clock(seconds) {
  const time = new Date(1000 * seconds), isToday = time.toDateString() === new Date().toDateString();
  return time.toLocaleString([], { ...(isToday ? {} : { day: "numeric", month: "short" }), hour: "2-digit", minute: "2-digit" });
}

export const labelOf = (person) => person.name || person.person_id;

export function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...(words[0] ?? "?")].slice(0, 2);
  return letters.join("").toUpperCase();
}

export function colorOf(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return `hsl(${(hash * 137.508) % 360} 46% 40%)`;
}
