// Search over all sub-units, and the grid of all units. ATLAS comes from index.js; everything is put in as text, never as markup.
(() => {
  "use strict";
  const LIMIT = 60;
  const input = document.getElementById("query"), list = document.getElementById("results"), count = document.getElementById("count");
  const page = (layer, unit) => `units/${ATLAS.layers[layer].replace(/[^A-Za-z0-9._-]/g, "_")}/u${unit}.html`;
  const rows = ATLAS.rows.map((row) => {
    const [layer, unit, part, name, ms, active, label] = row;
    const id = `${ATLAS.layers[layer]}/u${unit}.s${part}`;
    return { id, name, ms, active, label, href: `${page(layer, unit)}#s${part}`, text: `${name || ""} ${label || ""} ${id}`.toLowerCase(), exact: (name || "").toLowerCase() };
  });
  const make = (tag, text) => { const element = document.createElement(tag); if (text !== undefined) element.textContent = text; return element; };

  function show() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.replaceChildren();
    if (!words.length) { count.textContent = ""; return; }
    const query = words.join(" ");
    const found = rows.filter((row) => words.every((word) => row.text.includes(word)));
    found.sort((a, b) => (b.exact === query) - (a.exact === query) || b.exact.startsWith(query) - a.exact.startsWith(query) || (b.ms || 0) - (a.ms || 0));
    count.textContent = found.length ? `${found.length} sub-unit${found.length > 1 ? "s" : ""}${found.length > LIMIT ? `, the first ${LIMIT} shown` : ""}` : "Nothing found.";
    for (const row of found.slice(0, LIMIT)) {
      const link = make("a"), item = make("li");
      link.href = row.href;
      link.append(make("strong", row.name || "unnamed"), make("code", row.id), make("br"));
      const about = [row.ms === null ? null : `MS ${row.ms.toFixed(3)}`, `active ${(100 * row.active).toFixed(1)} %`, row.label && row.label !== row.name ? `mostly ${row.label}` : null];
      link.append(make("small", about.filter(Boolean).join(" · ")));
      item.append(link);
      list.append(item);
    }
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
