// Two views side by side: the one that was kept, and the present one. Another image, another preset, other edits.

import { h, link, number, percent, titleOf } from "./dom.js";
import { draw } from "./heat.js";
import { editText } from "./state.js";

const SHOWN = 8;

/** What is compared: the image, what steers it, the prediction, and how strong each concept is. */
export const snapshot = (subject, state, prediction, concepts) => ({
  name: subject.name, image: subject.image, edits: state.preset ? `preset ${state.preset}` : state.edits.map(editText).join(", ") || "not steered",
  prediction: prediction.embedding ? {} : (prediction.values ?? prediction), shown: prediction.values ? (value) => number(value, 3) : percent, concepts,
});

function column(side, text) {
  const canvas = h("canvas", { width: 220, height: 220, role: "img", "aria-label": side.name });
  draw(canvas, side.image, null);
  return h("div", {}, h("h3", {}, text), canvas, h("p", { class: "quiet" }, side.name), h("p", { class: "quiet" }, side.edits));
}

/** Rows by the larger of both values. */
function rows(first, second, of, shown = percent) {
  const names = new Set([...Object.keys(first), ...Object.keys(second)]);
  const most = (name) => Math.max(first[name] ?? 0, second[name] ?? 0);
  return [...names].sort((a, b) => most(b) - most(a)).slice(0, SHOWN).map((name) => h("tr", { "data-label": name },
    h("th", { scope: "row" }, of(name)), [first[name], second[name]].map((value) => h("td", {}, value === undefined ? "–" : shown(value)))));
}

const table = (caption, body) => h("table", {},
  h("caption", {}, caption),
  h("thead", {}, h("tr", {}, h("td", { "aria-hidden": "true" }), ["Kept", "Now"].map((text) => h("th", { scope: "col" }, text)))),
  h("tbody", {}, body));

const strengths = (side) => Object.fromEntries(side.concepts.map((concept) => [concept.id, concept.relative]));

export function comparison(kept, now) {
  const titles = Object.fromEntries([...kept.concepts, ...now.concepts].map((concept) => [concept.id, concept]));
  const concepts = rows(strengths(kept), strengths(now), (id) => link(id, titleOf(titles[id])));
  return h("div", { class: "comparison" },
    h("div", { class: "two" }, column(kept, "Kept"), column(now, "Now")),
    table("Prediction", rows(kept.prediction, now.prediction, (label) => label, now.shown)),
    concepts.length ? table("Concepts, of their maximum, before steering", concepts) : null);
}
