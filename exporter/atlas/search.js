// Search over all concepts and sub-units, and the grid of all units. ATLAS comes from index.js; everything is put in as text, never as markup.
(() => {
  "use strict";
  const LIMIT = 60;
  const input = document.getElementById("query"), list = document.getElementById("results"), count = document.getElementById("count");
  const page = (layer, unit) => `units/${ATLAS.layers[layer].replace(/[^A-Za-z0-9._-]/g, "_")}/u${unit}.html`;
  const tiny = new Set(ATLAS.tiny);
  const units = ATLAS.rows.map((row) => {
    const [layer, unit, part, name, ms, active, label, images] = row;
    const id = `${ATLAS.layers[layer]}/u${unit}.s${part}`;
    const about = [ms === null ? null : `MS ${ms.toFixed(3)}`, `active ${(100 * active).toFixed(1)} %`, label && label !== name ? `mostly ${label}` : null];
    return { id, name, images, rank: ms || 0, about, href: `${page(layer, unit)}#s${part}`, text: `${name || ""} ${label || ""} ${id}`.toLowerCase() };
  });
  const concepts = ATLAS.concepts.map((row, place) => {
    const [number, name, members, purity, images, typical] = row;
    const about = [members > 1 ? `concept of ${members} sub-units` : "concept of 1 sub-unit", purity === null ? null : `${Math.round(100 * purity)} % of one class`];
    return { id: `c${number}`, name: name || `Concept c${number}`, images, rank: -place, about, href: members > 1 ? `concepts/c${number}.html` : units[typical].href, text: `${name || ""} c${number} ${units[typical].text}` };
  });
  const make = (tag, text) => { const element = document.createElement(tag); if (text !== undefined) element.textContent = text; return element; };

  function show() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.replaceChildren();
    if (!words.length) { count.textContent = ""; return; }
    const query = words.join(" ");
    // Concepts first: one stands for all its sub-units.
    const fitting = [concepts, units].map((rows) => best(rows, words, query));
    const total = fitting[0].length + fitting[1].length;
    count.textContent = total ? `${counted(fitting[0].length, "concept")}, ${counted(fitting[1].length, "sub-unit")}${total > LIMIT ? `, the first ${LIMIT} shown` : ""}` : "Nothing found.";
    list.replaceChildren(...fitting.flat().slice(0, LIMIT).map(item));
  }

  const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

  function best(rows, words, query) {
    const exact = (row) => (row.name || "").toLowerCase();
    const found = rows.filter((row) => words.every((word) => row.text.includes(word)));
    return found.sort((a, b) => (exact(b) === query) - (exact(a) === query) || exact(b).startsWith(query) - exact(a).startsWith(query) || b.rank - a.rank);
  }

  function item(row) {
    const link = make("a"), entry = make("li"), thumbs = make("span");
    link.href = row.href;
    thumbs.className = "thumbs";
    for (const number of row.images) {
      const image = make("img");
      image.alt = "";
      image.loading = "lazy";
      image.width = image.height = 34;
      image.src = `images/${number}.${tiny.has(number) ? "png" : "webp"}`;
      if (tiny.has(number)) image.className = "tiny";
      thumbs.append(image);
    }
    link.append(thumbs, make("strong", row.name || "unnamed"), make("code", row.id), make("small", row.about.filter(Boolean).join(" · ")));
    entry.append(link);
    return entry;
  }

  input.addEventListener("input", show);
  for (const button of document.querySelectorAll("button[data-query]")) {
    button.addEventListener("click", () => { input.value = button.dataset.query; show(); input.focus(); });
  }

  const parts = new Map();
  for (const [layer, unit] of ATLAS.rows) { const key = `${layer}/${unit}`; parts.set(key, (parts.get(key) || 0) + 1); }
  const most = Math.max(...parts.values());
  function fill(box) {
    if (box.childElementCount) return;
    for (const [key, number] of parts) {
      const [layer, unit] = key.split("/").map(Number);
      if (layer !== Number(box.dataset.layer)) continue;
      const link = make("a", `u${unit}`);
      link.href = page(layer, unit);
      link.title = `${number} sub-unit${number > 1 ? "s" : ""}`;
      link.style.setProperty("--depth", `${Math.round((42 * (number - 1)) / Math.max(most - 1, 1))}%`);
      box.append(link);
    }
  }
  for (const box of document.querySelectorAll(".cells")) {
    const details = box.closest("details");
    if (details.open) fill(box); else details.addEventListener("toggle", () => fill(box), { once: true });
  }
  show();
})();
