// A line of talk and its memory. A memory is a value, so whatever one can do with it is an assignment:
// forking copies a list, rewinding shortens it, swapping exchanges two entries, a lesion writes a new one.

import { turnMacs } from "./cost.mjs";
import { World } from "./world.mjs";

const KEEP = 32; // moments that can be rewound to; older ones are let go, so that a long talk does not grow

/**
 * A moment: { kind, label, memory, ... } with kind "start", "turn" or "edit". A turn also has
 * { text, answer, ids, from, read, gate, write, ms: {answer, update}, macs, facts }; `from` is where its answer begins.
 */
export class Conversation {
  constructor(engine, moments = null) {
    this.engine = engine;
    this.world = engine.about.world ? new World(engine.about.world) : null;
    this.moments = moments ?? [{ kind: "start", label: "start", memory: engine.start, turn: 0, past: 0, known: [] }];
    this.hold = null; // a number in the place of every gate: 0 or 1; null leaves the gates as they were learned
  }

  get now() {
    return this.moments.at(-1);
  }

  get memory() {
    return this.now.memory;
  }

  /** Turns that are still kept. */
  get turns() {
    return this.moments.filter(({ kind }) => kind === "turn");
  }

  /**
   * One event of the cycle. `on.token(text)` while the answer streams, `on.answer(turn)` when it is complete: this is
   * all a user waits for. After a paint the event is remembered; the returned turn has it all.
   */
  async say(text, on = {}) {
    const query = this.engine.query(text), began = performance.now();
    const { ids, text: answer, read } = await this.engine.answer(query, this.memory, on.token);
    const answered = performance.now(), event = [...query, ...ids];
    const turn = { kind: "turn", label: text, text, answer, ids: event, from: query.length, read, turn: this.now.turn + 1 };
    turn.macs = turnMacs(this.engine.about.config, this.now.past, query.length, ids.length);
    turn.past = this.now.past + event.length;
    turn.known = this.factsAfter(text, turn.turn);
    await on.answer?.(turn);
    const update = performance.now();
    Object.assign(turn, await this.engine.remember(event, this.memory, this.hold), { hold: this.hold });
    turn.ms = { answer: answered - began, update: performance.now() - update };
    this.append(turn);
    return turn;
  }

  /** The facts known now and those told by `text`, newest last: [{attribute, entity, value, turn}]; at most 12. */
  factsAfter(text, turn) {
    const told = (this.world?.factsTold(text) ?? []).map((fact) => ({ ...fact, turn }));
    const same = (a) => (b) => a.attribute === b.attribute && a.entity === b.entity;
    return [...this.now.known.filter((old) => !told.some(same(old))), ...told].slice(-12);
  }

  append(moment) {
    this.moments.push(moment);
    if (this.moments.length > KEEP) this.moments.shift();
  }

  /** Ask for each known fact on the side: a copy of `memory` answers, and nothing is remembered. */
  async check(memory = this.memory) {
    const results = [];
    for (const fact of this.now.known) {
      const { text } = await this.engine.answer(this.engine.query(this.world.question(fact)), memory);
      results.push({ ...fact, answer: text, right: this.world.isRight(fact, text) });
    }
    return results;
  }

  /** Change the memory by hand. */
  edit(label, memory) {
    const { turn, past, known } = this.now;
    this.append({ kind: "edit", label, memory, turn, past, known });
  }

  /** `memory` with one slot as it was before anything was said. */
  without(layer, slot, memory = this.memory) {
    const { n_slots: S, d_model: D } = this.engine.about.config, at = (layer * S + slot) * D;
    const changed = memory.slice();
    changed.set(this.engine.start.subarray(at, at + D), at);
    return changed;
  }

  /** Back to an earlier moment. */
  rewind(index) {
    this.moments = this.moments.slice(0, index + 1);
  }

  clear() {
    this.moments = new Conversation(this.engine).moments;
  }

  /** A second conversation that remembers the same, and goes its own way from here. */
  fork() {
    const twin = new Conversation(this.engine, [...this.moments]);
    twin.hold = this.hold;
    return twin;
  }
}

/** Exchange the memories of two conversations; what was said stays where it was said. */
export function swap(a, b) {
  const [mine, theirs] = [a.memory, b.memory];
  a.edit("memory swapped with the other chat", theirs);
  b.edit("memory swapped with the other chat", mine);
}
