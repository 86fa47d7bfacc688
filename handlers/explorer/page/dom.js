// Building elements. Texts become text nodes, never markup.

export const by = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An image from base64 PNG; small ones keep their pixels sharp. */
export function picture(png, alt) {
  const image = h("img", { alt, width: 48, height: 48, src: `data:image/png;base64,${png}` });
  image.addEventListener("load", () => image.classList.toggle("coarse", image.naturalWidth < 64));
  return image;
}

export const percent = (p) => (p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

export function signed(value, digits = 1) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? "±0" : `${value > 0 ? "+" : "−"}${text}`;
}

export const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));

/** Whether an identifier is of a concept, such as `c12`, and not of a sub-unit. */
export const isConcept = (id) => /^c\d+$/.test(id);

/** A concept's or a sub-unit's title: its name, otherwise what its identifier says. */
export function titleOf(entry) {
  if (isConcept(entry.id)) return entry.name ?? `Concept ${entry.id}`;
  const [, unit, part] = /\/u(\d+)\.s(\d+)$/.exec(entry.id);
  return entry.name ?? `Unit ${unit}, part ${part}`;
}

/** The end of the identifier, beside a name that several sub-units may share. */
export const short = (entry) => (entry.name ? h("code", { class: "short" }, entry.id.split("/").pop()) : "");

/** A link to a sub-unit's page, `""` for the list; its address is completed when it is used. */
export const link = (id, text, attributes = {}) => h("a", { href: "#", "data-unit": id, ...attributes }, text);

export const unitOf = (id) => id.replace(/\.s\d+$/, "");
export const layerOf = (id) => id.replace(/\/u\d+\.s\d+$/, "");
