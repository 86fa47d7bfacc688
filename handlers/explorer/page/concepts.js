// Concepts: sets of sub-units, of whatever unit, that answer to the same images and are steered as one.

import { h, isConcept, link, short, titleOf } from "./dom.js";
import { steerButton, thumbs } from "./parts.js";

/** How strong a concept is on the image, as a bar and in words. */
export function strength(relative, words = " of its maximum") {
  const filled = h("span", { class: "bar" });
  filled.style.width = `${100 * Math.min(1, relative)}%`;
  return h("p", { class: "strength" }, h("span", { class: "track", "aria-hidden": "true" }, filled), h("span", {}, `${Math.round(100 * relative)} %${words}`));
}

export const members = (entry) => (entry.members === 1 ? "1 sub-unit" : `${entry.members} sub-units`);
export const purity = (entry) => (entry.purity === null ? "" : ` · ${Math.round(100 * entry.purity)} % of its images are of one class`);

/** One row; its images are those where it is strongest. A server of an earlier version has no page of a concept. */
export function conceptRow(context, entry) {
  return h("li", { "data-id": entry.id },
    h("div", { class: "about" },
      h("h3", {}, link(context.hasPages ? entry.id : entry.typical, titleOf(entry)), short(entry)),
      h("p", { class: "quiet" }, members(entry) + purity(entry)),
      entry.relative === undefined ? null : strength(entry.relative)),
    h("div", { class: "side" }, thumbs(context, context.hasPages ? entry.id : entry.typical, 4), steerButton(context, entry)));
}

/** What the service knows of a concept of that identifier; null if there is none. */
export async function findConcept(ask, id) {
  if (!isConcept(id)) return null;
  return (await ask("search", { query: id, limit: 1 })).concepts.find((concept) => concept.id === id) ?? null;
}
