// The page of one concept: where it is strongest, how strong it is here, what it does to the classes, what is like it.

import { h, link, number, percent, picture, short, signed, svg, titleOf } from "./dom.js";
import { crop } from "./heat.js";
import { members, purity, strength } from "./concepts.js";
import { bar } from "./prediction.js";
import { heat, steerButton, thumbs } from "./parts.js";

const CROPS = 8;
const SHOWN = 12; // sub-units with a map; the others are links
const WIDE = 320, HIGH = 96;

/** One of its strongest images, cropped to where its most typical sub-unit is active, with the map over it once it is known. */
function strongest(context, concept, example) {
  const canvas = h("canvas", { width: 176, height: 176, role: "img", "aria-label": `${example.label ?? example.image}, where ${titleOf(concept)} is active` });
  context.mapOf(example.png, concept.typical).then(([image, map]) => crop(canvas, image, map), () => canvas.replaceWith(picture(example.png, example.label ?? "")));
  return h("button", { type: "button", class: "example", title: `${example.image}: use it as the image`, "aria-label": `${percent(example.activation)}: use ${example.image} as the image`, onclick: () => context.use(example, concept.id) },
    canvas, h("span", {}, percent(example.activation)));
}

/** How many images it is how strong on, and a line where the present image is. */
function histogram(bins, here) {
  const [most, wide] = [Math.max(...bins, 1), WIDE / bins.length];
  const total = bins.reduce((sum, images) => sum + images, 0);
  const text = here === undefined ? "" : `; ${percent(here)} on this image`;
  const bars = bins.map((images, i) => svg("rect", { class: "bin", x: i * wide + 0.5, width: wide - 1, y: HIGH * (1 - images / most), height: (HIGH * images) / most }));
  const mark = here === undefined ? [] : [svg("line", { class: "here", x1: WIDE * Math.min(here, 1), x2: WIDE * Math.min(here, 1), y1: 0, y2: HIGH })];
  return h("figure", { class: "histogram" },
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `Strength on ${total} images${text}` }, ...bars, ...mark),
    h("div", { class: "marks", "aria-hidden": "true" }, h("span", {}, "0 %"), h("span", {}, "100 % of its maximum")),
    h("figcaption", { class: "quiet" }, `${total} images by how strong it is on them${here === undefined ? "." : "; the line is this image."}`));
}

/** Changes of the probabilities when it is switched off, turned around: what it adds to a class it promotes. */
function effects(change) {
  const rows = Object.entries(change).map(([label, by]) => [label, -by]).filter(([, by]) => Math.abs(by) >= 0.0005).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 8);
  if (!rows.length) return h("p", { class: "quiet" }, "Switching it off changes no class by 0.1 percentage points or more.");
  const largest = Math.abs(rows[0][1]);
  return h("table", { class: "effects" },
    h("caption", { class: "unseen" }, "Effect on the classes in percentage points"),
    h("tbody", {}, rows.map(([label, by]) => h("tr", { "data-label": label },
      h("th", { scope: "row" }, label),
      h("td", { class: "bars", "aria-hidden": "true" }, bar(Math.abs(by) / largest, by > 0 ? "now" : "against")),
      h("td", { class: by > 0 ? "more" : "less" }, `${by > 0 ? "promotes" : "suppresses"} ${signed(100 * by)}`)))));
}

const relatives = (context, title, others) => (!others.length ? [] : [
  h("h3", {}, title),
  h("ul", { class: "relatives" }, others.map((other) => h("li", {},
    thumbs(context, other.id, 3), h("p", {}, link(other.id, titleOf(other)), h("span", { class: "quiet" }, ` ${number(other.correlation)}`)))))]);

/** `here` is the concept on the image as 'inspect' gives it, `change` what switching it off changes; both null without an image. */
export function conceptPage(context, concept, here, change) {
  const found = here?.concepts[0];
  const parts = here?.sub_units.slice(0, SHOWN) ?? [];
  const others = concept.sub_units.filter(({ id }) => !parts.some((part) => part.id === id));
  return h("article", { class: "concept", "data-id": concept.id },
    h("p", {}, link("", "← All concepts and sub-units", { class: "back" })),
    h("div", { class: "heading" }, h("h2", { id: "page-title", tabindex: -1 }, titleOf(concept)), steerButton(context, concept)),
    h("p", { class: "quiet" }, h("code", {}, concept.id), ` · ${members(concept)}${purity(concept)}`),
    found ? strength(found.relative) : null,
    h("h3", {}, "Where it is strongest"),
    h("div", { class: "crops" }, concept.examples.slice(0, CROPS).map((example) => strongest(context, concept, example))),
    concept.histogram ? [h("h3", {}, "How strong it is on how many images"), histogram(concept.histogram, found?.relative)] : [],
    change ? [h("h3", {}, "Effect on the classes of this image"), h("p", { class: "quiet" }, "Percentage points, measured by switching it off."), effects(change)] : [],
    h("div", { class: "two" }, [["Similar", concept.similar], ["Opposite", concept.opposite]].map(([title, rows]) => h("div", {}, relatives(context, title, rows)))),
    h("h3", {}, parts.length ? "Its sub-units on this image" : "Its sub-units"),
    h("ul", { class: "siblings" }, parts.map((part) => h("li", { "data-id": part.id },
      heat(context, part), h("p", {}, link(part.id, titleOf(part)), short(part)), steerButton(context, part)))),
    others.length ? h("p", { class: "quiet" }, parts.length ? `And ${others.length} more: ` : "", others.slice(0, 60).flatMap((other) => [link(other.id, other.id.split("/").pop()), " "])) : null);
}
