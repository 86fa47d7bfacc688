// A second model beside the first: its answer to the same image, and the concepts that are strongest in it.

import * as api from "./api.js";
import { largest, rows, snapshot, table } from "./compare.js";
import { by, h, isConcept, link, titleOf } from "./dom.js";
import { draw } from "./heat.js";
import { thumbs } from "./parts.js";
import { strength } from "./concepts.js";

const SIDE = "beside/";
const LISTED = 5;

let names = []; // of the first and the second model
let second = null; // the second's answer of 'describe'; null if there is none
let asked = []; // the image and preset of the second's latest answer
let answered = null; // a promise of it
const features = new Map();

const ask = (op, fields) => api.ask(op, fields, SIDE).catch((error) => { throw error instanceof api.Refusal ? new api.Refusal(`${names[1]}: ${error.message}`) : error; });

const other = {
  get hasPages() { return second.operations.includes("concept"); },
  feature(id) {
    if (!features.has(id)) {
      features.set(id, ask(isConcept(id) ? "concept" : "feature", { id, examples: 3 }));
      features.get(id).catch(() => features.delete(id));
    }
    return features.get(id);
  },
};

/** Learns whether there is a second model, and offers its presets; `chosen` is called with the name of one. */
export async function open(chosen) {
  names = await api.sides();
  if (names.length < 2) return;
  second = await ask("describe");
  const presets = second.steering === "off" ? [] : Object.keys(second.presets);
  by("beside-preset").replaceChildren(...[["", "none"], ...presets.map((name) => [name, name])].map(([value, text]) => h("option", { value }, text)));
  by("beside-preset").addEventListener("change", () => chosen(by("beside-preset").value));
  by("beside-presets").hidden = presets.length === 0;
  by("beside-name").textContent = names[1];
  by("beside").hidden = false;
}

export const there = () => second !== null;

async function answer(subject, preset) {
  const image = subject.base64;
  const prediction = preset ? ask("steer", { image, preset, compare: false }).then((found) => found.steered) : ask("predict", { image });
  const seen = api.view(api.fromBase64(image), SIDE).then(createImageBitmap);
  const strong = ask("inspect", { image, top_k: LISTED, heat_map: "none" });
  const [picture, probabilities, found] = await Promise.all([seen, prediction, strong]);
  return snapshot({ name: subject.name, image: picture }, { preset, edits: [] }, probabilities, found);
}

/** One model: what it sees, and what is strongest in it; of the second there are no pages to open. */
function model(side, name, context, title) {
  const canvas = h("canvas", { width: 220, height: 220, role: "img", "aria-label": `${side.name}, as ${name} sees it` });
  draw(canvas, side.image, null);
  const subjects = (side.concepts.length ? side.concepts : side.sub_units).slice(0, LISTED);
  return h("div", {}, h("h3", {}, name), canvas, h("p", { class: "quiet" }, "Strongest, of the maximum"), h("ol", {}, subjects.map((entry) => {
    const shown = isConcept(entry.id) && !context.hasPages ? entry.typical : entry.id;
    return h("li", { "data-id": entry.id }, h("p", {}, title(entry, shown)), entry.relative === undefined ? null : strength(entry.relative, ""), thumbs(context, shown, 3));
  })));
}

function agreement(first, last) {
  const [one, two] = [largest(first.prediction), largest(last.prediction)];
  if (!one || !two || first.values || last.values) return "";
  const [p, q] = [first.shown(first.prediction[one]), last.shown(last.prediction[two])];
  return one === two ? `Both say “${one}”: ${p} and ${q}.` : `${names[0]} says “${one}” (${p}), ${names[1]} “${two}” (${q}).`;
}

/** Shows both models' answers; `present()` gives the first's, as it is steered now. */
export async function show(subject, preset, context, present) {
  const fresh = asked[0] !== subject || asked[1] !== preset;
  if (fresh) [asked, answered] = [[subject, preset], answer(subject, preset)];
  const [first, last] = await Promise.all([present(), answered]).catch((error) => { asked = []; throw error; });
  if (asked[0] !== subject || asked[1] !== preset) return;
  const text = agreement(first, last);
  by("beside-agreement").textContent = text;
  by("beside-prediction").replaceChildren(table("Prediction, the first five of each", names, rows(first.prediction, last.prediction, (label) => label, [first.shown, last.shown])));
  if (fresh || !by("beside-models").firstChild) {
    by("beside-models").replaceChildren(
      model(first, names[0], context, (entry, id) => link(id, titleOf(entry))), model(last, names[1], other, titleOf));
  }
}

/** Takes away answers to what is not shown any more. */
export function clear() {
  for (const id of ["beside-agreement", "beside-prediction", "beside-models"]) by(id).replaceChildren();
}
