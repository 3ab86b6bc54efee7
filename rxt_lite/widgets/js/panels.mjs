// A moment of a memory, looked at: what changed, how far each gate opened, what was read and what was taken in.
// All of them draw from plain arrays, whether the model runs in the page, in a kernel, or only its record is at hand.

import { folded, grid, h, heatMap, plainTable, short } from "./drawing.mjs";

const slotNames = (S) => Array.from({ length: S }, (_, s) => `${s + 1}`);
const shaded = (value) => ({ share: Math.max(0, Math.min(1, value)), text: value.toFixed(2) });

function length(x) {
  return Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length);
}

/** Cosine of a slot to itself before. */
function cosine(x, y) {
  let [xy, xx, yy] = [0, 0, 0];
  x.forEach((value, i) => ((xy += value * y[i]), (xx += value * value), (yy += y[i] * y[i])));
  return xy / Math.sqrt(xx * yy || 1);
}

/** Rows of numbers about each slot of a bank (S D): length before and after (root mean square), cosine, change. */
function slotRows(before, after, S, D) {
  return slotNames(S).map((name, s) => {
    const [old, now] = [before, after].map((bank) => bank.subarray(s * D, (s + 1) * D));
    return { name, before: length(old), after: length(now), cosine: cosine(old, now), change: length(now.map((value, d) => value - old[d])) };
  });
}

/** One layer of the memory before and after, and the difference. */
export function memoryPanel({ n_slots: S, d_model: D }, layer, before, after) {
  const [old, now] = [before, after].map((memory) => memory.subarray(layer * S * D, (layer + 1) * S * D));
  const difference = now.map((value, i) => value - old[i]), most = Math.max(strong(old), strong(now)), moved = strong(difference);
  const rows = slotRows(old, now, S, D), changed = rows.reduce((a, b) => (b.change > a.change ? b : a));
  const said = changed.change ? `Slot ${changed.name} changed most: its cosine to itself before is ${changed.cosine.toFixed(2)}.` : "No slot changed.";
  const map = (name, values, most) => h("figure", {}, heatMap(values, S, D, most, `${name}: ${S} slots of layer ${layer + 1}, ${D} numbers each. ${said}`),
    h("figcaption", {}, name));
  return h("div", { class: "rxt-memory" },
    h("div", { class: "rxt-maps" }, map("before", old, most), map("after", now, most), map("difference", difference, moved)),
    h("p", { class: "rxt-scale" }, `A row is a slot, a column one of its ${D} numbers: blue is below zero, orange above, pale is near zero. Full colour is ±${short(most)}, in the difference ±${short(moved)}. ${said}`),
    folded("The same as a table", plainTable(`Slots of layer ${layer + 1}`, ["slot", "length before", "length after", "change", "cosine"],
      rows.map((row) => [row.name, ...[row.before, row.after, row.change, row.cosine].map((value) => value.toFixed(2))]))));
}

/** Almost the largest size: one far value must not pale all others. */
function strong(values) {
  return Float32Array.from(values, Math.abs).sort()[Math.floor(0.99 * (values.length - 1))];
}

/** Gate of every slot: (L S). */
export function gatePanel({ n_layers: L, n_slots: S }, gate) {
  return grid({ caption: "Gate: how much of each slot gave way to its update", corner: "layer", columns: slotNames(S),
    rows: Array.from({ length: L }, (_, l) => ({ head: l + 1, cells: Array.from(gate.subarray(l * S, (l + 1) * S), shaded) })) });
}

/** Which slots each token looked at: L times (T S), labels (T or more). Shares are shown beside the largest. */
export function readPanel({ n_slots: S }, layer, labels, read) {
  const shares = read[layer], most = strong(shares) || 1, T = shares.length / S;
  const cells = (t) => Array.from(shares.subarray(t * S, (t + 1) * S), (value) => ({ share: Math.min(1, value / most), text: value.toFixed(2) }));
  return grid({ caption: `Reading: which slots of layer ${layer + 1} each token looked at`, corner: "token", columns: slotNames(S),
    rows: labels.slice(0, T).map((head, t) => ({ head, cells: cells(t) })) });
}

/** Which words each slot took in: L times (S T). */
export function writePanel({ n_slots: S }, layer, labels, write) {
  const shares = write[layer], T = labels.length, most = strong(shares) || 1;
  const cells = (s) => Array.from(shares.subarray(s * T, (s + 1) * T), (value) => ({ share: Math.min(1, value / most), text: value.toFixed(2) }));
  return grid({ caption: `Writing: which words each slot of layer ${layer + 1} looked at when it was rewritten`, corner: "slot", columns: labels,
    rows: slotNames(S).map((head, s) => ({ head, cells: cells(s) })) });
}

/** All panels of a moment; `parts` L S D, labels, before, and the moment itself. */
export function momentPanels(config, layer, before, moment) {
  const { memory, gate, read, write, labels } = moment;
  return [memoryPanel(config, layer, before, memory), ...(gate ? [gatePanel(config, gate)] : []),
    ...(write ? [writePanel(config, layer, labels, write)] : []), ...(read ? [readPanel(config, layer, labels, read)] : [])];
}

/** Told facts against turns: was each known when asked on the side? turns: [{ turn, facts: [{attribute, entity, value, turn, right, answer}] }] */
export function survivalPanel(turns, statement) {
  const seen = turns.filter(({ facts }) => facts), told = new Map();
  for (const { facts } of seen) for (const fact of facts) told.set(statement(fact), fact);
  const cell = (sentence, { facts }) => {
    const fact = facts.find((other) => statement(other) === sentence);
    if (!fact) return { share: 0, text: "not told, or no longer true", mark: "·" };
    return fact.right ? { share: 0.55, text: "known", mark: "✓" } : { share: 0, text: `not known: ${fact.answer}`, mark: "✗" };
  };
  if (!told.size) return h("p", { class: "rxt-note" }, "Nothing has been told yet that could be asked for.");
  return grid({ caption: "Survival: asked on the side after each turn, is the fact still known?", corner: "told", columns: seen.map(({ turn }) => `${turn}`),
    rows: [...told.keys()].map((head) => ({ head, cells: seen.map((turn) => cell(head, turn)) })) });
}

/** Which emptied slot loses which fact: results[s] is what `check` says without slot s. */
export function lesionPanel(layer, facts, results, statement) {
  return grid({ caption: `Lesion: each slot of layer ${layer + 1} emptied in turn, all facts asked`, corner: "fact", columns: slotNames(results.length),
    rows: facts.map((fact, i) => ({ head: `${statement(fact)}${fact.right ? "" : " (not known before)"}`,
      cells: results.map((of) => (of[i].right ? { share: 0.15, text: "still known" } : { share: 1, text: `lost: ${of[i].answer}`, mark: "✗" })) })) });
}
