// Two views side by side: the one that was kept, and the present one. Another image, another preset, other edits.

import { h, link, number, percent, titleOf } from "./dom.js";
import { draw } from "./heat.js";
import { editText } from "./state.js";

const SHOWN = 8;
const SIDES = ["Kept", "Now"];

/** What is compared: the image, what steers it, the prediction, and how strong each concept and sub-unit is. */
export const snapshot = (subject, state, prediction, { concepts, sub_units }) => ({
  name: subject.name, image: subject.image, edits: state.preset ? `preset ${state.preset}` : state.edits.map(editText).join(", ") || "not steered",
  prediction: prediction.embedding ? {} : (prediction.values ?? prediction), values: Boolean(prediction.values),
  shown: prediction.values ? (value) => number(value, 3) : percent, concepts: concepts ?? [], sub_units,
});

/** The label of the largest value; undefined if there is none. */
export const largest = (values) => Object.keys(values).sort((a, b) => values[b] - values[a])[0];

function column(side, text) {
  const canvas = h("canvas", { width: 220, height: 220, role: "img", "aria-label": side.name });
  draw(canvas, side.image, null);
  return h("div", {}, h("h3", {}, text), canvas, h("p", { class: "quiet" }, side.name), h("p", { class: "quiet" }, side.edits));
}

/** Rows by the larger of both values; `shown` writes a value of the first, and of the second. */
export function rows(first, second, of, shown = [percent, percent]) {
  const names = new Set([...Object.keys(first), ...Object.keys(second)]);
  const most = (name) => Math.max(first[name] ?? 0, second[name] ?? 0);
  return [...names].sort((a, b) => most(b) - most(a)).slice(0, SHOWN).map((name) => h("tr", { "data-label": name },
    h("th", { scope: "row" }, of(name)), [first[name], second[name]].map((value, i) => h("td", {}, value === undefined ? "–" : shown[i](value)))));
}

export const table = (caption, heads, body) => h("table", {},
  h("caption", {}, caption),
  h("thead", {}, h("tr", {}, h("td", { "aria-hidden": "true" }), heads.map((text) => h("th", { scope: "col" }, text)))),
  h("tbody", {}, body));

const strengths = (side) => Object.fromEntries(side.concepts.map((concept) => [concept.id, concept.relative]));

export function comparison(kept, now) {
  const titles = Object.fromEntries([...kept.concepts, ...now.concepts].map((concept) => [concept.id, concept]));
  const concepts = rows(strengths(kept), strengths(now), (id) => link(id, titleOf(titles[id])));
  return h("div", { class: "comparison" },
    h("div", { class: "two" }, column(kept, SIDES[0]), column(now, SIDES[1])),
    table("Prediction", SIDES, rows(kept.prediction, now.prediction, (label) => label, [kept.shown, now.shown])),
    concepts.length ? table("Concepts, of their maximum, before steering", SIDES, concepts) : null);
}
