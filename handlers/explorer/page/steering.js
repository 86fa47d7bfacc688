// Sliders: one per edited concept or sub-unit.

import { by, h, isConcept, link, number, short, titleOf, unitOf } from "./dom.js";
import { editText, simplest, state } from "./state.js";

const SCALE = { min: -20, max: 20, step: 0.1 };
const ACTIONS = { scale: "Multiply by", set: "Set to", add: "Add" };
// The sub-units of a concept differ in range: one value to set or add would mean something else for each.
const OF_CONCEPTS = { scale: "Multiply all by" };

/** The range of a slider: gains, or values of about twice the largest activation known. */
function range(edit, maximum) {
  if (edit.action === "scale") return SCALE;
  const most = Number((2 * Math.max(maximum, 0.5)).toPrecision(2));
  return { min: -most, max: most, step: most / 100 };
}

const meaning = (edit) =>
  edit.action !== "scale" ? "" : edit.value === 0 ? "switched off" : edit.value === 1 ? "unchanged" : edit.value < 0 ? "turned around" : edit.value < 1 ? "turned down" : "turned up";

/** One edit's controls; `changed` is called on each move, `removed` once it is taken away. */
function control(edit, entry, { changed, removed, locked }) {
  const key = edit.id.replace(/\W/g, "-");
  const limits = range(edit, entry.maximum ?? 1);
  const actions = isConcept(edit.id) && edit.action === "scale" ? OF_CONCEPTS : ACTIONS;
  const slider = h("input", { type: "range", id: `slider-${key}`, "aria-label": `${actions[edit.action]}: ${titleOf(entry)}`, ...limits, disabled: locked });
  slider.value = edit.value;
  const exact = h("input", { type: "number", step: "any", "aria-label": `Value for ${titleOf(entry)}`, value: edit.value, disabled: locked });
  const says = h("span", { class: "quiet" }, meaning(edit));
  const set = (value, from) => {
    if (value === "" || !Number.isFinite(Number(value))) return;
    edit.value = Number(value);
    if (from !== slider) slider.value = edit.value;
    if (from !== exact) exact.value = Number(edit.value.toPrecision(6));
    says.textContent = meaning(edit);
    changed();
  };
  slider.addEventListener("input", () => set(slider.value, slider));
  exact.addEventListener("input", () => set(exact.value, exact));
  const action = h("select", { "aria-label": `What to do with ${titleOf(entry)}`, disabled: locked }, Object.entries(actions).map(([name, text]) => h("option", { value: name, selected: name === edit.action }, text)));
  action.addEventListener("change", () => changed({ action: action.value, value: action.value === "scale" ? 1 : 0 }));
  const count = h("input", { type: "number", min: 1, max: 100000, step: 1, value: edit.patches || 1, "aria-label": "Number of strongest patches", hidden: !edit.patches, disabled: locked });
  const where = h("select", { "aria-label": `Where to edit ${titleOf(entry)}`, disabled: locked }, h("option", { value: "all" }, "everywhere"), h("option", { value: "some", selected: edit.patches > 0 }, "on the strongest"));
  const patches = h("span", { hidden: !edit.patches, class: "quiet" }, "patches");
  where.addEventListener("change", () => {
    count.hidden = patches.hidden = where.value === "all";
    edit.patches = where.value === "all" ? 0 : Number(count.value);
    changed();
  });
  count.addEventListener("input", () => {
    if (Number.isInteger(Number(count.value)) && Number(count.value) > 0) edit.patches = Number(count.value);
    changed();
  });
  const marks = limits === SCALE ? ["−20", "0", "20"] : [number(limits.min, 1), "0", number(limits.max, 1)];
  return h("li", { "data-id": edit.id },
    h("div", { class: "heading" },
      h("span", {}, link(edit.id, titleOf(entry), { title: edit.id }), short(entry)),
      locked ? null : h("button", { type: "button", class: "plain", "aria-label": `Remove the edit of ${titleOf(entry)}`, onclick: () => removed(edit) }, "Remove")),
    h("div", { class: "line" }, action, exact, says),
    slider,
    h("div", { class: "marks", "aria-hidden": "true" }, marks.map((mark) => h("span", {}, mark))),
    h("div", { class: "line" }, where, count, patches));
}

/** Shows the controls of `state.edits`; `entryOf(id)` gives what is known of a concept or sub-unit. */
export function showEdits(entryOf, actions) {
  by("edits").replaceChildren(...state.edits.map((edit) =>
    control(edit, entryOf(edit.id), { ...actions, changed: (over) => actions.changed(edit, over) })));
  const some = state.edits.length > 0;
  by("steering-hint").hidden = some;
  by("reset").hidden = by("copy").hidden = !some;
  showTexts();
}

/** The texts to copy. */
export function showTexts() {
  const preset = { "my preset": state.edits.map(simplest) };
  by("as-preset").value = JSON.stringify(preset, null, 1);
  const quoted = state.edits.map((edit) => ` \\\n  --${isConcept(edit.id) ? "concept" : "edit"} '${editText(edit)}'`).join("");
  by("as-command").value = `elude call steer IMAGE${quoted}`;
}

export const placeholder = (id) => ({ id, name: null, maximum: null, ...(isConcept(id) ? {} : { unit: unitOf(id) }) });
