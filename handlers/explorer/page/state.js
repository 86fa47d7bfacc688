import { isConcept } from "./dom.js";

// What the page shows, all of which its address holds, so that a link leads to the same view.

export const state = { image: "", from: "", unit: "", data: "", q: "", order: "activation", target: "", layer: "", edits: [], preset: "", beside: "" };
const TEXTS = ["image", "from", "unit", "data", "q", "order", "target", "layer", "preset", "beside"];
const ORDERS = ["activation", "effect", "unusual"];

/** `ID=ACTION[:VALUE][@PATCHES]`, as the command line writes an edit. */
export function editText(edit) {
  const { action, value } = simplest(edit);
  return `${edit.id}=${action}${value === undefined ? "" : `:${value}`}${edit.patches ? `@${edit.patches}` : ""}`;
}

function readEdit(text) {
  const found = /^(.+)=(scale|ablate|set|add)(?::(-?[\d.e+-]+))?(?:@(\d+))?$/.exec(text);
  if (!found || !(isConcept(found[1]) || /\/u\d+\.s\d+$/.test(found[1]))) return null;
  const ablate = found[2] === "ablate";
  const value = ablate ? 0 : Number(found[3]);
  return Number.isFinite(value) ? { id: found[1], action: ablate ? "scale" : found[2], value, patches: Number(found[4] ?? 0) } : null;
}

/** An edit as a request says it: scaling by 0 is ablation, and one edit of a concept stands for all its sub-units. */
export function simplest(edit) {
  const subject = { [isConcept(edit.id) ? "concept" : "id"]: edit.id };
  const patches = edit.patches ? { patches: edit.patches } : {};
  if (edit.action === "scale" && edit.value === 0) return { ...subject, action: "ablate", ...patches };
  return { ...subject, action: edit.action, value: edit.value, ...patches };
}

/** Whether an edit leaves everything as it is, as each does before its slider is moved. */
export const isNeutral = (edit) => edit.value === (edit.action === "scale" ? 1 : 0) && edit.action !== "set";

export function address(changes = {}) {
  const now = { ...state, ...changes };
  const words = new URLSearchParams();
  for (const name of TEXTS) if (now[name] && now[name] !== "activation") words.set(name, now[name]);
  for (const edit of now.preset ? [] : now.edits) words.append("edit", editText(edit));
  return `#${words.toString().replace(/%2F/g, "/").replace(/%3A/g, ":").replace(/%40/g, "@").replace(/%3D/g, "=")}`;
}

/** The state that the address names; what cannot be read in it is left out. */
export function read() {
  const words = new URLSearchParams(location.hash.slice(1));
  const found = Object.fromEntries(TEXTS.map((name) => [name, words.get(name) ?? ""]));
  if (!ORDERS.includes(found.order)) found.order = "activation";
  if (!isConcept(found.unit) && !/\/u\d+\.s\d+$/.test(found.unit)) found.unit = "";
  const edits = words.getAll("edit").map(readEdit).filter(Boolean);
  return { ...found, edits: edits.filter((edit, i) => edits.findIndex((other) => other.id === edit.id) === i) };
}

/** Bytes as the address holds them: base64 of the letters that an address needs not escape. */
export const toAddress = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
export const fromAddress = (text) => text.replaceAll("-", "+").replaceAll("_", "/");

export const keep = () => history.replaceState(null, "", address());
