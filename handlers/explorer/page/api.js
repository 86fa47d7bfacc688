// Asks the server that this page came from, and nobody else.

export class Refusal extends Error {}

let waiting = 0;

/** Marks the document while answers are awaited; the mark stays a moment, so that requests in a row are one wait. */
function wait(more) {
  waiting += more;
  if (waiting) document.documentElement.setAttribute("data-waiting", "");
  else setTimeout(() => waiting || document.documentElement.removeAttribute("data-waiting"), 120);
}

async function send(path, body, type) {
  let answer;
  wait(1);
  try {
    answer = await fetch(path, { method: "POST", headers: { "content-type": type }, body });
  } catch {
    throw new Refusal("The explorer does not answer. Is it still running?");
  } finally {
    wait(-1);
  }
  if (answer.ok) return answer;
  const refused = await answer.json().catch(() => ({ message: `The explorer answered ${answer.status}.` }));
  throw new Refusal(refused.message);
}

/** One operation; `side` is "beside/" for the second model. */
export async function ask(op, fields = {}, side = "") {
  return (await send(`${side}ask`, JSON.stringify({ op, ...fields }), "application/json")).json();
}

/** What the model sees of an image: a PNG. */
export async function view(bytes, side = "") {
  return (await send(`${side}view`, bytes, "application/octet-stream")).blob();
}

async function load(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Refusal(`The ${path} are not available: the explorer answered ${answer.status}.`);
  return answer.json();
}

export const examples = () => load("examples");

/** The names of the models: one, or two that are shown beside each other. */
export const sides = () => load("sides");

/** Runs one request at a time and then the newest that came meanwhile: a slider is followed live, and the latest answer wins. */
export function live(work, fail) {
  let running = false;
  let next = null;
  return async function again(...given) {
    next = given;
    if (running) return;
    running = true;
    while (next) {
      const now = next;
      next = null;
      await work(...now).catch(fail);
    }
    running = false;
  };
}

export function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

export const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
