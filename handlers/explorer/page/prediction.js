// The prediction, and beside it the steered one.

import { by, h, number, percent, signed } from "./dom.js";

const NOTHING = 1e-6; // change of any output below which only the order of additions differs

export function bar(part, kind) {
  const element = h("span", { class: `bar ${kind}` });
  element.style.width = `${100 * part}%`;
  return element;
}

const share = (p, kind) => h("td", {}, h("data", { value: String(p), class: kind }, percent(p)));

function moved(change) {
  const text = signed(100 * change);
  return h("td", { class: text === "±0" ? "quiet" : change > 0 ? "more" : "less" }, text);
}

function table(before, after, change) {
  const labels = Object.keys({ ...before, ...(after ?? {}) });
  const head = after ? ["Class", "", "Before", "Steered", "Change"] : ["Class", "", "Probability"];
  const rows = labels.map((label) => {
    // A class that only one of the two lists names has its other probability from the change.
    const plain = before[label] ?? after[label] - change[label];
    const steered = after && (after[label] ?? plain + change[label]);
    const bars = [bar(plain, after ? "before" : "now"), after ? bar(steered, "now") : null];
    const cells = after ? [share(plain, "before"), share(steered, "now"), moved(change[label])] : [share(plain, "now")];
    return h("tr", { "data-label": label }, h("th", { scope: "row" }, label), h("td", { class: "bars", "aria-hidden": "true" }, bars), cells);
  });
  return h("table", { class: after ? "steered" : "" },
    h("caption", { class: "unseen" }, after ? "Prediction before and after steering; change in percentage points" : "Prediction"),
    h("thead", {}, h("tr", {}, head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", { "aria-hidden": "true" }))))),
    h("tbody", {}, rows));
}

/** Outputs of a regression, as they are. */
function values(before, after, change) {
  const rows = Object.entries(before).map(([label, value]) => h("tr", { "data-label": label }, h("th", { scope: "row" }, label),
    h("td", {}, number(value, 3)), after ? [h("td", {}, number(after[label], 3)), h("td", { class: "quiet" }, signed(change[label], 3))] : []));
  const head = after ? ["Output", "Before", "Steered", "Change"] : ["Output", "Value"];
  return h("table", {}, h("caption", { class: "unseen" }, "Prediction"), h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows));
}

/** What is said of a steer that changes no output; null of one that does. */
function ineffective(answer, neutral) {
  if (!answer?.steered || !(answer.max_output_change < NOTHING)) return null;
  const text = neutral ? "Nothing is changed yet: move a slider." : "No effect: this steer changes no output of the model on this image.";
  return h("p", { class: "ineffective" }, text);
}

/** Shows `{label: probability}` or an embedding; `answer` is that of predict or of steer, none before there is an image; `neutral` says that no edit asks for a change. */
export function showPrediction(answer, neutral = false) {
  const before = answer && (answer.unsteered ?? answer);
  const content = [];
  if (!answer) content.push(h("p", { class: "quiet" }, "Pick an image."));
  else if (before.embedding) {
    content.push(h("p", {}, `This model has no classes: it gives ${before.embedding.length} numbers.`));
    if (answer.steered) content.push(h("p", {}, `Steering changes one of them by up to ${answer.max_output_change.toPrecision(3)}.`));
  } else if (before.values) content.push(values(before.values, answer.steered?.values, answer.change));
  else content.push(table(before, answer.steered, answer.change));
  const nothing = ineffective(answer, neutral);
  by("prediction").replaceChildren(...content, ...(nothing ? [nothing] : []));
}
