// Sub-units: as rows of a list, and one on a page of its own beside the other parts of its unit.

import { h, layerOf, link, number, picture, short, signed, titleOf, unitOf } from "./dom.js";
import { draw } from "./heat.js";

export function heat(context, entry) {
  const canvas = h("canvas", { width: 208, height: 208, class: "heat", role: "img", "aria-label": entry.heat_map ? `Where ${titleOf(entry)} is active on the image` : "The image" });
  draw(canvas, context.image, entry.heat_map);
  return canvas;
}

export function steerButton(context, entry) {
  const button = h("button", { type: "button", class: "steer", "data-steer": entry.id, "data-title": titleOf(entry), onclick: () => context.steer(entry) });
  return mark(context, button);
}

/** Says on a button whether its concept or sub-unit is steered already. */
export function mark(context, button) {
  const edited = context.edited(button.dataset.steer);
  button.disabled = edited || context.locked;
  button.textContent = edited ? "Steered" : "Steer";
  button.setAttribute("aria-label", `${button.textContent}: ${button.dataset.title}`);
  return button;
}

function facts(entry) {
  const texts = [];
  if (entry.effect !== undefined) texts.push(["effect", signed(entry.effect, 3)]);
  if (entry.relative !== undefined) texts.push(["of its maximum", `${Math.round(100 * entry.relative)} %`]);
  if (entry.activation !== undefined) texts.push([typeof entry.unit === "object" ? `of unit’s ${number(entry.unit.activation)}` : "active", number(entry.activation)]);
  if (entry.share !== undefined) texts.push(["of its weights", `${Math.round(100 * entry.share)} %`]);
  return h("p", { class: "facts" }, texts.map(([text, value]) => h("span", {}, h("b", {}, value), ` ${text}`)));
}

/** Small images that make a sub-unit fire most; they come when they come. */
export function thumbs(context, id, count) {
  const place = h("div", { class: "thumbs" });
  context.feature(id).then(
    (feature) => place.append(...feature.examples.slice(0, count).map((example) => picture(example.png, example.label ?? example.image))),
    () => place.append(h("span", { class: "quiet" }, "no examples")),
  );
  return place;
}

/** Shows a sub-unit's map on the large image while the row is pointed at or has the focus. */
function pointed(element, context, entry) {
  for (const name of ["pointerenter", "focusin"]) element.addEventListener(name, () => context.point(entry));
  for (const name of ["pointerleave", "focusout"]) element.addEventListener(name, () => context.point(null));
  return element;
}

export function row(context, entry) {
  const parts = entry.unit?.parts;
  return pointed(h("li", { "data-id": entry.id },
    heat(context, entry),
    h("div", { class: "about" },
      h("h3", {}, link(entry.id, titleOf(entry))),
      h("p", { class: "quiet" }, h("code", {}, entry.id), parts > 1 ? ` · 1 of ${parts} parts` : parts ? " · whole unit" : ""),
      facts(entry)),
    h("div", { class: "side" }, thumbs(context, entry.id, 4), steerButton(context, entry))), context, entry);
}

/** Completes rows that came without a map, such as those of a search. */
export async function fill(context, element, entry) {
  if (entry.heat_map || !context.image) return;
  const found = (await context.unit(unitOf(entry.id))).find((part) => part.id === entry.id);
  if (!found) return;
  entry.heat_map = found.heat_map;
  element.querySelector("canvas").replaceWith(heat(context, entry));
}

const STATISTICS = [
  ["Largest known", "maximum", number],
  ["Mean", "mean", number],
  ["Active on", "active", (value) => `${(100 * value).toFixed(1)} % of places`],
  ["Share of weights", "share", (value) => `${Math.round(100 * value)} %`],
  ["Share of bias", "omega", number],
  ["MS-Score", "ms_score", number],
  ["Margin ρ", "rho", number],
  ["Name from", "name_method", (value) => value ?? "–"],
];

/** The page of one sub-unit. `parts` are those of its unit as 'inspect' gives them, or as 'feature' does without an image. */
export function page(context, feature, parts) {
  const own = parts.find((part) => part.id === feature.id);
  const here = own?.activation;
  const unit = unitOf(feature.id);
  const siblings = [...parts].sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
  return h("article", {},
    h("p", {}, link("", "← All sub-units", { class: "back" })),
    h("div", { class: "heading" },
      h("h2", { id: "page-title", tabindex: -1 }, titleOf(feature)),
      steerButton(context, feature)),
    h("p", { class: "quiet" }, h("code", {}, feature.id), ` in layer ${layerOf(feature.id)}`),
    h("dl", {},
      here === undefined ? null : h("div", {}, h("dt", {}, "On this image"), h("dd", {}, number(here))),
      STATISTICS.map(([text, name, shown]) => h("div", {}, h("dt", {}, text), h("dd", {}, shown(feature[name]))))),
    h("h3", {}, "Images that activate it most"),
    h("div", { class: "tops" }, feature.examples.map((example) =>
      h("button", { type: "button", class: "example", title: `${example.image}: use it as the image`, "aria-label": `${number(example.activation)}: use ${example.image} as the image`, onclick: () => context.use(example, feature.id) },
        picture(example.png, ""), h("span", {}, number(example.activation))))),
    feature.examples.length ? null : h("p", { class: "quiet" }, "None: it is never active on the probing images."),
    h("h3", {}, siblings.length === 1 ? `The only part of ${unit}` : `The ${siblings.length} parts of unit ${unit.split("/u").pop()}, side by side`),
    h("ul", { class: "siblings" }, siblings.map((part) => pointed(
      h("li", { class: part.id === feature.id ? "own" : "", "data-id": part.id },
        heat(context, part),
        h("p", {}, part.id === feature.id ? h("b", { "aria-current": "true" }, titleOf(part)) : link(part.id, titleOf(part)), short(part)),
        facts(part),
        thumbs(context, part.id, 4),
        steerButton(context, part)), context, part))));
}
