// The engine in the page: fetches a model, answers and remembers. `kernel-engine.mjs` does the same with Python's model.
//
//   about, parameters, name                      { config, answer_tokens, world, ... }, and what the status line says
//   start                                        the memory before anything was said
//   query(text)                                  ids, or one kind sentence why not
//   answer(ids, memory, onToken)                 { ids, text, read }         reads the memory
//   remember(ids, memory, hold)                  { memory, gate, write }     makes a new one

import { EOS, Tokenizer, checkedQuery } from "./tokenizer.mjs";
import { RxT } from "./rxt.mjs";
import { fastestAlgebra } from "./kernel.mjs";
import { readSafetensors } from "./safetensors.mjs";

const PATIENCE = 12; // ms of work before the page may paint

/** Let the page paint, if it has waited for long. */
function breather() {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < PATIENCE) return;
    await new Promise((resume) => setTimeout(resume));
    since = performance.now();
  };
}

export function mostLikely(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** The bytes at `url`, with progress: onProgress(bytes so far, bytes in all). One sentence if they do not all arrive. */
async function fetchBytes(url, expected, onProgress) {
  const reply = await fetch(url).catch(() => null);
  if (!reply?.ok) throw new Error(`${url} could not be fetched (${reply ? reply.status : "no connection"})`);
  const bytes = new Uint8Array(expected), reader = reply.body.getReader();
  for (let at = 0; ; ) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    const end = at + (value?.length ?? 0);
    if (done ? at !== expected : end > expected) throw new Error(`the weights are cut off or not the right ones: ${done ? at : end} of ${expected} bytes came`);
    if (done) return bytes.buffer;
    bytes.set(value, at);
    onProgress((at = end), expected);
  }
}

async function fetchJson(url) {
  const reply = await fetch(url, { cache: "no-cache" }).catch(() => null);
  if (!reply?.ok) throw new Error(`${url} could not be fetched (${reply ? reply.status : "no connection"})`);
  return reply.json();
}

export class LocalEngine {
  constructor(about, tokenizer, model) {
    Object.assign(this, { about, tokenizer, model, start: model.start, parameters: model.parameters, name: model.algebra.name });
  }

  /** The model that `rxt-lite export-web` wrote into the folder `base` (ends with a slash). */
  static async fetch(base, onProgress = () => {}) {
    const [about, tokenizer] = await Promise.all([fetchJson(`${base}config.json`), fetchJson(`${base}tokenizer.json`)]);
    return LocalEngine.from(about, tokenizer, await fetchBytes(base + about.weights.file, about.weights.bytes, onProgress));
  }

  /** The same from files that the reader picked: config.json, tokenizer.json and the weights. */
  static async open(files) {
    const named = (end) => {
      const file = [...files].find(({ name }) => name.endsWith(end) && !name.startsWith("reference"));
      if (!file) throw new Error(`pick config.json, tokenizer.json and model….safetensors together; there is no …${end} among them`);
      return file;
    };
    const [about, tokenizer] = await Promise.all(["config.json", "tokenizer.json"].map(async (name) => JSON.parse(await named(name).text())));
    return LocalEngine.from(about, tokenizer, await named(".safetensors").arrayBuffer());
  }

  static async from(about, tokenizer, weights, algebra = null) {
    const model = new RxT(about.config, readSafetensors(weights).tensors, algebra ?? (await fastestAlgebra()));
    return new LocalEngine(about, new Tokenizer(tokenizer), model);
  }

  query(text) {
    return checkedQuery(text, this);
  }

  /** Greedy answer to the query `ids`. `read`: L times (tokens fed, S); the last token is said, never fed. */
  async answer(ids, memory, onToken = () => {}) {
    const pause = breather(), event = this.model.open(memory), said = [];
    const room = Math.min(this.about.answer_tokens, this.about.config.max_len - ids.length);
    let { logits, read } = this.model.extend(event, ids);
    const seen = read.map((rows) => [rows]);
    for (;;) {
      said.push(mostLikely(logits));
      onToken(this.tokenizer.decode(said), said);
      if (said.at(-1) === EOS || said.length === room) break;
      await pause();
      ({ logits, read } = this.model.extend(event, said.slice(-1)));
      read.forEach((rows, l) => seen[l].push(rows));
    }
    return { ids: said, text: this.tokenizer.decode(said), read: seen.map(joined) };
  }

  async remember(ids, memory, hold = null) {
    const pause = breather(), steps = this.model.remembering(ids, memory, hold);
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      await pause();
    }
  }

  labels(ids) {
    return ids.map((id) => this.tokenizer.label(id));
  }

  /** A decoder of the same shape that has no memory and reads a transcript: for the cost meter's stopwatch. */
  stateless() {
    return this.model.open(null);
  }

  async read(event, ids) {
    const pause = breather();
    for (let t = 0; t < ids.length; t += 16) {
      this.model.extend(event, ids.slice(t, t + 16));
      await pause();
    }
  }
}

function joined(parts) {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) whole.set(part, at), (at += part.length);
  return whole;
}
