// Which few edits flip the answer: a greedy search over the concepts of which the image shows most.

import { h, isConcept, percent, titleOf } from "./dom.js";

const CANDIDATES = 8;
export const MOST_ROUNDS = 4;
const GAINS = [[0, 4, -4], [10, -10], [20, -20]]; // switched off, turned up, turned around; stronger ones only if these do not suffice
const AT_ONCE = 4; // requests on their way

const NOTHING = 1e-4; // gain of a step below which it is not worth one

const request = ({ id, value }) => ({ [isConcept(id) ? "concept" : "id"]: id, ...(value === 0 ? { action: "ablate" } : { action: "scale", value }) });

/** The concepts of which the image shows most: the strength of all their sub-units together. Sub-units come as they are. */
const candidates = (subjects) => subjects.map((subject) => [subject, (subject.relative ?? 0) * (subject.members ?? 1)]).sort((a, b) => b[1] - a[1]).slice(0, CANDIDATES).map(([subject]) => subject);

/** How far the class is ahead of the best other one; below 0 once the answer is another. */
function lead(probabilities, label) {
  const others = Object.entries(probabilities).filter(([other]) => other !== label).map(([, p]) => p);
  return (probabilities[label] ?? 0) - Math.max(...others, 0);
}

/** Runs `work` on all items, a few at once. */
async function all(items, work) {
  const answers = new Array(items.length);
  let next = 0;
  const run = async () => { while (next < items.length) { const i = next++; answers[i] = await work(items[i]); } };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
  return answers;
}

/** The edits of one set of gains; each round tries every candidate beside the edits so far and keeps the one after which the class leads least. */
async function greedy(steered, label, before, tried, gains, told) {
  const steps = [];
  let after = before;
  while (steps.length < MOST_ROUNDS && lead(after, label) >= 0) {
    told(steps.length + 1);
    const free = tried.filter(({ id }) => !steps.some((step) => step.id === id));
    const trials = free.flatMap((subject) => gains.map((value) => ({ ...subject, value })));
    const answers = await all(trials, (trial) => steered([...steps, trial]));
    const leads = answers.map((answer) => lead(answer, label));
    const best = leads.indexOf(Math.min(...leads));
    if (best < 0 || leads[best] > lead(after, label) - NOTHING) break;
    after = answers[best];
    steps.push({ ...trials[best], after });
  }
  return steps;
}

/** The steps without those that are not needed any more once the later ones are there. */
async function needed(steered, label, steps) {
  let rest = steps;
  for (const step of steps.slice(0, -1)) {
    const fewer = rest.filter((other) => other !== step);
    const after = await steered(fewer);
    if (lead(after, label) < 0) rest = [...fewer.slice(0, -1), { ...fewer.at(-1), after }];
  }
  return rest;
}

/** The edits in the order in which they were found, each with the prediction after it; `flipped` says whether they suffice. */
export async function search(ask, image, subjects, told = () => {}) {
  const steered = async (edits) => (await ask("steer", { image, edits: edits.map(request), compare: false })).steered;
  const before = await ask("predict", { image });
  const [label, tried] = [Object.keys(before)[0], candidates(subjects)];
  let steps = [];
  for (const gains of GAINS) {
    steps = await greedy(steered, label, before, tried, gains, told);
    const after = steps.at(-1)?.after ?? before;
    if (lead(after, label) < 0) {
      steps = await needed(steered, label, steps);
      return { label, before, steps, flipped: true, after: steps.at(-1).after };
    }
  }
  return { label, before, steps, flipped: false, after: steps.at(-1)?.after ?? before };
}

const said = (step) => `${titleOf(step)} ${step.value === 0 ? "switched off" : `times ${String(step.value).replace("-", "−")}`}`;
const first = (probabilities) => Object.entries(probabilities)[0];

/** What was found, as a list; the edits themselves are sliders that can be moved or removed. */
export function report({ label, before, steps, flipped, after }, undo) {
  const [answer, probability] = first(after);
  const text = flipped
    ? `${steps.length === 1 ? "One edit turns" : `${steps.length} edits turn`} “${label}” into “${answer}”.`
    : `No flip: “${label}” stays ahead, from ${percent(before[label])} to ${percent(probability)}, with ${steps.length} edits of the ${CANDIDATES} concepts of which it shows most.`;
  return h("div", { class: "flip", "data-flipped": String(flipped) },
    h("p", {}, text),
    h("ol", {}, steps.map((step) => h("li", {}, said(step), h("span", { class: "quiet" }, ` “${label}” ${percent(step.after[label] ?? 0)}`)))),
    h("button", { type: "button", id: "undo-flip", onclick: undo }, "Undo"));
}
