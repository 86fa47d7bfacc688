// The page: what is picked, asked and shown.

import * as api from "./api.js";
import * as beside from "./beside.js";
import { comparison, snapshot } from "./compare.js";
import { conceptPage } from "./concept_page.js";
import { conceptRow, findConcept } from "./concepts.js";
import { by, h, isConcept, picture, titleOf, unitOf } from "./dom.js";
import * as flip from "./flip.js";
import { draw } from "./heat.js";
import { fill, mark, page, row } from "./parts.js";
import { showPrediction } from "./prediction.js";
import { address, editText, fromAddress, isNeutral, keep, read, simplest, state, toAddress } from "./state.js";
import { placeholder, showEdits, showTexts } from "./steering.js";

const STEP = 12;
const CONCEPTS = 6; // of the rows of each step
const LISTED = 5; // classes of a prediction
const REST = 250; // milliseconds without a move after which the exact answer is asked
const IN_ADDRESS = 24_000; // bytes of an image that a link carries: what mail and chat programs let pass
const ORDERS = { activation: "strongest in this image", effect: "largest effect on a class", unusual: "most unusual for this image" };

let model; // the answer of 'describe'
let subject = null; // { name, base64, image }
let shown = []; // the rows of the list
let count = STEP;
const known = new Map(); // what was learnt of a concept or sub-unit, by identifier
const features = new Map();
let units = new Map(); // the parts of a unit, or of a concept, on this image
let prediction = null; // the present one, steered if there are edits
let strong = null; // a promise of the concepts and sub-units that are strongest on this image
let pinned = null; // what the present view is compared with
let plain = null; // a promise of the unsteered prediction with many classes
let refining; // the timer of the exact answer
const maps = new Map(); // of example images

// ---- messages ----

/** Tells what went wrong; it stays until it is dismissed or what it is about succeeds. */
function tell(error, about) {
  if (!(error instanceof api.Refusal)) throw error;
  by("message").dataset.about = about;
  by("message").replaceChildren(
    h("p", {}, error.message),
    h("button", { type: "button", class: "plain", onclick: () => calm(about) }, "Dismiss"));
}

function calm(about) {
  if (by("message").dataset.about === about) by("message").replaceChildren();
}

const say = (text) => (by("status").textContent = text);

// ---- what the parts of the page share ----

const context = {
  get image() { return subject?.image ?? null; },
  get locked() { return model.steering !== "free"; },
  get hasPages() { return model.operations.includes("concept"); }, // not on servers of an earlier version
  edited: (id) => state.edits.some((edit) => edit.id === id),
  feature(id) {
    if (!features.has(id)) {
      features.set(id, api.ask(isConcept(id) ? "concept" : "feature", { id, examples: 12 }).then((found) => (known.set(id, found), found)));
      features.get(id).catch(() => features.delete(id));
    }
    return features.get(id);
  },
  unit(id) {
    if (!units.has(id)) {
      units.set(id, api.ask("inspect", { image: subject.base64, unit: id, top_k: model.limits.max_top_k }).then((found) => found.sub_units));
      units.get(id).catch(() => units.delete(id));
    }
    return units.get(id);
  },
  /** An example image as the model sees it, and where on it a sub-unit is active. */
  mapOf(png, id) {
    const key = `${id} ${png}`;
    if (!maps.has(key)) {
      const seen = api.view(api.fromBase64(png)).then(createImageBitmap);
      const map = api.ask("inspect", { image: png, unit: unitOf(id), top_k: model.limits.max_top_k }).then((found) => found.sub_units.find((part) => part.id === id).heat_map);
      maps.set(key, Promise.all([seen, map]));
    }
    return maps.get(key);
  },
  point(entry) {
    draw(by("picture"), context.image, entry?.heat_map);
    by("caption").textContent = entry?.heat_map ? `Where ${titleOf(entry)} is active` : captionOf();
  },
  steer(entry) {
    if (!known.has(entry.id)) known.set(entry.id, entry);
    state.edits.push({ id: entry.id, action: "scale", value: 1, patches: 0 });
    state.preset = "";
    showSteering();
    refreshButtons();
    changed();
    learn(entry.id).catch(() => {}); // its largest activation, for the sliders of other actions
    by(`slider-${entry.id.replace(/\W/g, "-")}`).focus();
    say(`${titleOf(entry)} can be steered now.`);
  },
  use: (example, from) => pick({ ...example, from }),
};

/** Asks what an edited concept or sub-unit is called, and how strong it can be. */
async function learn(id) {
  if (!isConcept(id) || context.hasPages) return context.feature(id);
  const concept = known.get(id) ?? (await findConcept(api.ask, id));
  if (concept) known.set(id, concept);
}

const captionOf = () => (subject ? `${subject.name}, as the model sees it` : "");

// ---- the image ----

/** Makes bytes the image; what cannot be read leaves the one before in place. */
async function setImage(name, bytes, from = "") {
  try {
    const image = await createImageBitmap(await api.view(bytes));
    subject = { name, base64: api.toBase64(bytes), image };
  } catch (error) {
    return tell(error, "image");
  }
  calm("image");
  const small = !from && bytes.length <= IN_ADDRESS;
  Object.assign(state, { image: from || small ? name : "", from, data: small ? toAddress(subject.base64) : "" });
  [units, strong, plain, prediction] = [new Map(), null, null, null];
  showLink();
  by("hint").hidden = true;
  by("picture").setAttribute("aria-label", captionOf());
  context.point(null);
  for (const button of by("examples").children) button.setAttribute("aria-pressed", String(button.dataset.image === state.image));
  keep();
  predict();
  by("flip").replaceChildren();
  await Promise.all([refreshList(), state.unit ? refreshPage() : null]);
}

const pick = (example) => setImage(example.image, api.fromBase64(example.png), example.from);

async function take(files) {
  const file = files?.[0];
  if (!file) return;
  if (file.size > model.limits.max_bytes) return tell(new api.Refusal(`${file.name} has ${file.size} bytes; at most ${model.limits.max_bytes} are allowed.`), "image");
  await setImage(file.name, new Uint8Array(await file.arrayBuffer()));
}

/** What a link to this view brings back. */
function showLink() {
  by("share").hidden = false;
  by("carries").textContent = !subject ? "" : state.data ? "The link carries this image." : state.from ? "The link names this example." : `The link does not carry this image (${Math.ceil(subject.base64.length * 0.75 / 1000)} kB): send it along.`;
}

async function share() {
  keep();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
    by("share").textContent = "Copied";
    setTimeout(() => (by("share").textContent = "Copy the link"), 1500);
  } catch {
    say("The link is in the address bar."); // the browser does not let pages write to the clipboard
  }
}

// ---- prediction and steering ----

const predict = api.live(async () => {
  clearTimeout(refining);
  if (!subject) return showPrediction(null);
  const [asked, image, texts] = [subject, subject.base64, state.edits.map(editText).join(" ")];
  const edits = state.preset ? { preset: state.preset } : { edits: state.edits.map(simplest) };
  const [answer, exact] = await answered(image, edits);
  if (asked !== subject) return;
  show(answer, texts);
  timed();
  if (!exact) refining = setTimeout(() => refine(asked, edits, texts).catch((error) => tell(error, "prediction")), REST);
  if (pinned) showComparison().catch((error) => tell(error, "comparison"));
  refreshBeside();
}, (error) => tell(error, "prediction"));

function show(answer, texts) {
  showPrediction(answer, state.edits.every(isNeutral));
  prediction = answer.steered ?? answer;
  by("flipping").hidden = context.locked || !model.labels || Boolean(prediction.values); // only a class can flip
  by("prediction").dataset.edits = texts;
  calm("prediction");
}

/** The answer, and whether it is that of one request. While a slider moves, the plain prediction is not computed again: that halves the time. */
async function answered(image, edits) {
  if (!state.edits.length) return [await api.ask("predict", { image }), true];
  if (!model.labels) return [await api.ask("steer", { image, ...edits }), true];
  const top_k = Math.min(model.labels.length, model.limits.max_top_k);
  plain ??= api.ask("predict", { image, top_k });
  const before = await plain;
  const joined = before.values ? null : join(before, (await api.ask("steer", { image, ...edits, compare: false, top_k })).steered);
  return joined ? [joined, false] : [await api.ask("steer", { image, ...edits }), true];
}

/** Both predictions as 'steer' compares them; null if a class among the first of one is not known of the other. */
function join(before, after) {
  const first = (probabilities) => Object.keys(probabilities).slice(0, LISTED);
  const labels = [...new Set([...first(before), ...first(after)])];
  if (!labels.every((label) => label in before && label in after)) return null;
  const of = (probabilities) => Object.fromEntries(labels.map((label) => [label, probabilities[label]]));
  return { unsteered: of(before), steered: of(after), change: Object.fromEntries(labels.map((label) => [label, after[label] - before[label]])) };
}

/** Once a slider rests: both predictions of one pass, and whether anything changed at all. */
async function refine(asked, edits, texts) {
  const answer = await api.ask("steer", { image: asked.base64, ...edits });
  if (asked === subject && texts === state.edits.map(editText).join(" ")) show(answer, texts);
}

/** For the benchmark: how long the first prediction took from the start, and each answer from the move of a slider. */
function timed() {
  if (performance.getEntriesByName("moved").length) performance.measure("answer", "moved");
  if (!performance.getEntriesByName("first prediction").length) performance.mark("first prediction");
  performance.clearMarks("moved");
}

/** After a move of a slider: the texts, the address, the prediction. */
function changed() {
  performance.mark("moved");
  showTexts();
  keep();
  predict();
}

function showSteering() {
  by("preset").value = state.preset;
  showEdits((id) => known.get(id) ?? placeholder(id), {
    locked: context.locked,
    changed(edit, over) {
      state.preset = by("preset").value = "";
      if (over) {
        Object.assign(edit, over);
        showSteering();
        document.querySelector(`#edits [data-id="${edit.id}"] select`).focus();
      }
      changed();
    },
    removed(edit) {
      state.edits = state.edits.filter((other) => other !== edit);
      state.preset = "";
      showSteering();
      refreshButtons();
      changed();
      by("steering-title").focus();
      say("Removed.");
    },
  });
}

function usePreset(name) {
  state.preset = name;
  state.edits = (model.presets[name] ?? []).map((edit) => ({ id: edit.id, action: edit.action === "ablate" ? "scale" : edit.action, value: edit.value ?? 0, patches: edit.patches }));
  for (const edit of model.presets[name] ?? []) if (!known.has(edit.id)) known.set(edit.id, { ...edit, maximum: null });
  showSteering();
  refreshButtons();
  changed();
}

/** The concepts that are strongest on this image; of a bundle without concepts its sub-units. */
function strongest() {
  strong ??= api.ask("inspect", { image: subject.base64, top_k: model.limits.max_top_k, heat_map: "none" });
  return strong;
}

/** Searches the few edits that flip the answer, and puts them where they can be moved and undone. */
async function findFlip() {
  const [asked, before] = [subject, { edits: state.edits, preset: state.preset }];
  if (!asked) return;
  by("find-flip").disabled = true;
  try {
    const { concepts, sub_units } = await strongest();
    const subjects = concepts?.length ? concepts : sub_units;
    const result = await flip.search(api.ask, asked.base64, subjects, (round) => (by("flip").textContent = `Trying edit ${round} of ${flip.MOST_ROUNDS} at most …`));
    if (asked !== subject) return;
    for (const step of result.steps) known.set(step.id, { ...step, ...known.get(step.id) });
    replaceEdits(result.steps.map(({ id, value }) => ({ id, action: "scale", value, patches: 0 })), "");
    by("flip").replaceChildren(flip.report(result, () => {
      replaceEdits(before.edits, before.preset);
      by("flip").replaceChildren();
      by("find-flip").focus();
    }));
    calm("flip");
  } catch (error) {
    by("flip").replaceChildren();
    tell(error, "flip");
  } finally {
    by("find-flip").disabled = false;
  }
}

function replaceEdits(edits, preset) {
  Object.assign(state, { edits, preset });
  showSteering();
  refreshButtons();
  changed();
}

// ---- comparison ----

const present = async () => snapshot(subject, state, prediction, await strongest());

/** The second model's answer; only once the first has answered, which is waited for. */
const refreshBeside = api.live(async () => {
  if (!beside.there() || !prediction) return;
  await beside.show(subject, state.beside, context, present);
  calm("beside");
}, (error) => {
  beside.clear();
  tell(error, "beside");
});

function useBeside(preset) {
  state.beside = preset;
  keep();
  refreshBeside();
}

async function pin() {
  if (!subject || !prediction) return;
  pinned = await present();
  by("pin").textContent = "Keep this one instead";
  by("unpin").hidden = false;
  await showComparison();
  by("comparison").scrollIntoView({ block: "nearest" });
  say("Kept. Choose another image, preset or edit: both are shown side by side.");
}

function unpin() {
  pinned = null;
  by("pin").textContent = "Keep for comparison";
  by("unpin").hidden = true;
  by("comparison").replaceChildren();
  by("pin").focus();
}

async function showComparison() {
  const now = await present();
  if (pinned) by("comparison").replaceChildren(comparison(pinned, now));
}

// ---- the list, and the page of a concept or a sub-unit ----

async function entries() {
  if (state.q) {
    const answer = await api.ask("search", { query: state.q, limit: Math.min(count, model.limits.max_top_k) });
    const found = answer.sub_units;
    return [answer, found.length ? `Sub-units with “${state.q}” in their name or identifier.` : `No sub-unit has “${state.q}” in its name or identifier.`];
  }
  if (!subject) return [{ concepts: [], sub_units: [] }, "Pick an image to see which sub-units it activates."];
  const common = { image: subject.base64, top_k: Math.min(count, model.limits.max_top_k), ...(state.layer ? { layer: state.layer } : {}) };
  if (state.order === "unusual") {
    const found = await api.ask("search", { image: subject.base64, limit: common.top_k });
    return [found, "Ordered by how strong each is here, compared with the strongest probing image."];
  }
  if (state.order === "effect") {
    const candidates = Math.min(model.limits.max_candidates, Math.max(32, count));
    const found = await api.ask("inspect", { ...common, by: "effect", candidates, ...(state.target ? { target: state.target } : {}) });
    return [found, `Effect: how much the logit of “${found.effects.target}” falls when the sub-unit is switched off. Measured for the ${found.effects.measured} most active.`];
  }
  return [await api.ask("inspect", common), "Each map shows where on the image the sub-unit is active, its strongest place brightest."];
}

/** The concepts above the sub-units; none of a bundle of an earlier version. */
function showConcepts(concepts) {
  const rows = concepts.slice(0, CONCEPTS * Math.ceil(count / STEP));
  for (const concept of rows) known.set(concept.id, concept);
  by("concepts").hidden = rows.length === 0;
  by("concepts-hint").textContent = state.q ? `Concepts with “${state.q}” in their name.` : "Each is a set of sub-units that answer to the same images; one slider steers all of them. Strongest in this image first.";
  by("concept-rows").replaceChildren(...rows.map((concept) => conceptRow(context, concept)));
}

const refreshList = api.live(async () => {
  const asked = [subject, address()];
  by("parts").setAttribute("aria-busy", "true");
  const [answer, hint] = await entries().finally(() => by("parts").removeAttribute("aria-busy"));
  if (asked[0] !== subject) return;
  const found = answer.sub_units;
  showConcepts(answer.concepts ?? []); // servers of an earlier version name none
  shown = found.map((entry) => [entry, row(context, entry)]);
  for (const [entry] of shown) known.set(entry.id, { maximum: null, ...known.get(entry.id), ...entry });
  by("explain-title").textContent = state.q ? "Search" : "Sub-units";
  by("explain-hint").textContent = hint;
  by("options").hidden = Boolean(state.q);
  by("parts").replaceChildren(...shown.map(([, element]) => element));
  by("more").hidden = found.length < count || count >= model.limits.max_top_k;
  if (state.q) say(`${found.length} sub-units and ${answer.concepts?.length ?? 0} concepts found.`);
  calm("list");
  await Promise.all(shown.map(([entry, element]) => fill(context, element, entry)));
}, (error) => tell(error, "list"));

async function refreshPage() {
  const id = state.unit;
  try {
    const feature = await context.feature(id);
    if (isConcept(id)) {
      const image = subject?.base64;
      const here = image ? await api.ask("inspect", { image, concept: id, top_k: model.limits.max_top_k }) : null;
      const effect = image && model.labels && !context.locked ? await api.ask("steer", { image, edits: [{ concept: id, action: "ablate" }], top_k: Math.min(model.labels.length, model.limits.max_top_k) }) : null;
      if (id !== state.unit || image !== subject?.base64) return;
      calm("page");
      return by("page").replaceChildren(conceptPage(context, feature, here, effect?.change ?? null));
    }
    const parts = subject ? await context.unit(unitOf(id)) : await Promise.all([id, ...feature.siblings].map(context.feature));
    for (const part of parts) if (!known.has(part.id)) known.set(part.id, part);
    if (id !== state.unit) return;
    calm("page");
    by("page").replaceChildren(page(context, feature, parts));
  } catch (error) {
    state.unit = "";
    keep();
    showView();
    tell(error, "page");
  }
}

const refreshButtons = () => document.querySelectorAll("button.steer").forEach((button) => mark(context, button));

function showView() {
  by("page").hidden = !state.unit;
  by("list").hidden = Boolean(state.unit);
  by("explain").setAttribute("aria-labelledby", state.unit ? "page-title" : "explain-title");
  document.title = state.unit ? `${state.unit} – elude explorer` : "elude explorer";
}

/** Goes where the address says: by a link, by the back button, or at the start. */
async function go() {
  const [before, next] = [{ ...state }, read()];
  Object.assign(state, next);
  const sameEdits = JSON.stringify(before.edits) === JSON.stringify(next.edits) && before.preset === next.preset;
  showControls();
  if (state.preset) usePreset(state.preset);
  else if (!sameEdits) {
    showSteering();
    changed();
    Promise.allSettled(state.edits.map((edit) => learn(edit.id))).then(showSteering); // with names and ranges
  } else state.edits = before.edits; // the objects that the sliders hold
  showView();
  if (before.beside !== state.beside) refreshBeside();
  if (state.data) {
    if (state.data !== before.data) await linkedImage();
  } else if (state.image !== before.image && state.image) await findImage();
  else if (["q", "order", "target", "layer"].some((name) => before[name] !== state[name])) refreshList();
  if (state.unit && (state.unit !== before.unit || !by("page").firstChild)) {
    await refreshPage();
    by("page-title")?.focus({ preventScroll: true });
    by("explain").scrollIntoView({ block: "nearest" });
  } else if (before.unit && !state.unit) by("explain-title").focus({ preventScroll: true });
  refreshButtons();
}

let offered = [];

/** The image that the address names: one of the examples, or a top image of the sub-unit that it names. */
async function findImage() {
  const listed = offered.find((example) => example.image === state.image);
  if (listed) return pick(listed);
  const feature = state.from ? await context.feature(state.from).catch(() => null) : null;
  const example = feature?.examples.find((entry) => entry.image === state.image);
  if (example) return pick({ ...example, from: state.from });
  return tell(new api.Refusal(`The image ${state.image} that this address names is not one of the model's examples.`), "image");
}

/** The image that the address carries. */
async function linkedImage() {
  let bytes;
  try {
    bytes = api.fromBase64(fromAddress(state.data));
  } catch {
    return tell(new api.Refusal("The image in this address cannot be read: the link may have been cut."), "image");
  }
  await setImage(state.image || "the image of the link", bytes);
}

// ---- controls ----

function showControls() {
  by("query").value = state.q;
  by("order").value = state.order;
  by("target").value = state.target;
  by("layer").value = state.layer;
  by("beside-preset").value = state.beside;
  by("target-label").hidden = state.order !== "effect";
  by("layer-label").hidden = model.layers.length < 2 || state.order === "unusual";
}

function choose(name, value) {
  Object.assign(state, { [name]: value, unit: "" });
  count = STEP;
  keep();
  showControls();
  showView();
  return refreshList();
}

function connect() {
  const options = (id, entries) => by(id).replaceChildren(...entries.map(([value, text]) => h("option", { value }, text)));
  options("order", Object.entries(ORDERS).filter(([name]) => name !== "effect" || model.labels));
  options("target", [["", "the predicted one"], ...(model.labels ?? []).map((label) => [label, label])]);
  options("layer", [["", "all"], ...model.layers.map((layer) => [layer.name, layer.name])]);
  options("preset", [["", "none"], ...Object.keys(model.presets).map((name) => [name, name])]);
  by("presets").hidden = Object.keys(model.presets).length === 0 || model.steering === "off";
  if (model.steering === "off") by("steering-hint").textContent = "Steering is switched off on this server.";
  if (model.steering === "presets") by("steering-hint").textContent = "This server allows only its presets.";
  for (const name of ["order", "target", "layer"]) by(name).addEventListener("change", () => choose(name, by(name).value));
  by("preset").addEventListener("change", () => usePreset(by("preset").value));
  by("search").addEventListener("submit", (event) => event.preventDefault());
  by("query").addEventListener("input", () => choose("q", by("query").value.trim()));
  by("more").addEventListener("click", () => { count += STEP; refreshList(); });
  by("share").addEventListener("click", share);
  by("find-flip").addEventListener("click", findFlip);
  by("pin").addEventListener("click", () => pin().catch((error) => tell(error, "comparison")));
  by("unpin").addEventListener("click", unpin);
  by("reset").addEventListener("click", () => { usePreset(""); say("All edits are removed."); });
  by("file").addEventListener("change", () => take(by("file").files).finally(() => (by("file").value = "")));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
  addEventListener("hashchange", () => go().catch((error) => tell(error, "page")));
  // A link to a sub-unit leads to the edits of now, not of when it was drawn.
  for (const name of ["pointerdown", "focusin", "click"]) document.addEventListener(name, freshen, true);
  addEventListener("dragover", (event) => { event.preventDefault(); by("drop").classList.add("over"); });
  for (const name of ["dragleave", "drop"]) addEventListener(name, () => by("drop").classList.remove("over"));
  addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer?.files); });
  addEventListener("paste", (event) => take(event.clipboardData?.files));
}

function freshen(event) {
  const link = event.target.closest?.("a[data-unit]");
  if (link) link.href = address({ unit: link.dataset.unit });
}

async function copy(button) {
  const text = by(button.dataset.copy);
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    say("Copied.");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = `Copy the ${button.dataset.copy.slice(3)}`), 1500);
  } catch {
    say("The text is selected; copy it with the keyboard."); // the browser does not let pages write to the clipboard
  }
}

async function start() {
  const examples = api.examples();
  examples.catch(() => {}); // told below, where it is awaited
  [model] = await Promise.all([api.ask("describe"), beside.open(useBeside)]);
  const { source, layers } = model;
  by("model").textContent = `${source.model} · ${layers.map((layer) => `${layer.name}: ${layer.units} units, ${layer.sub_units} sub-units`).join(" · ")}`;
  connect();
  showPrediction(null);
  showSteering();
  offered = await examples;
  by("examples").replaceChildren(...offered.map((example) => h("button", { type: "button", class: "example", "data-image": example.image, "aria-pressed": "false", title: example.image, onclick: () => pick(example) },
    picture(example.png, example.label ?? example.image))));
  by("examples-title").hidden = offered.length === 0;
  if (!offered.length) by("hint").textContent = "Drop an image here.";
  await go();
  if (subject || state.image || state.data) return;
  if (offered.length) await pick(offered[0]); // something to look at
  else await refreshList();
}

start().catch((error) => tell(error, "start"));
