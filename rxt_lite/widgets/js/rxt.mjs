// RxT in one page of JavaScript: answer from a memory of fixed size, then fold the finished event into it.
//
//   answer     logits = decoder(tokens, memory)            reads the memory, never changes it
//   remember   memory' = memoryAttention(memory, encoder(query + answer))
//
// T tokens, D width, L layers, S slots, H heads of width K = D / H, F inner width, V vocabulary. The memory is a
// Float64Array (L, S, D): a value, in as an argument, out as a result. Weights have single precision, all that is computed
// with them double: in single, a memory of large numbers drifts by more than 1e-5 in a dozen events, in PyTorch too. The
// mathematics and the names of the weights are those of rxt_lite/models/rxt.py; arXiv 2510.03561.

import { PlainAlgebra, add, attend, gatedUnit, rmsNorm, rotate, sigmoid } from "./algebra.mjs";

/** Rows of numbers that grow: the keys, or the values, of the tokens read so far. */
class Rows {
  constructor(width, capacity = 64) {
    [this.width, this.count, this.store] = [width, 0, new Float64Array(width * capacity)];
  }

  push(rows) {
    const used = this.count * this.width;
    if (used + rows.length > this.store.length) {
      const larger = new Float64Array(2 * (used + rows.length));
      larger.set(this.store.subarray(0, used));
      this.store = larger;
    }
    this.store.set(rows, used);
    this.count += rows.length / this.width;
  }
}

export class RxT {
  /** `config` as in config.json; `tensors` {name: {shape, data}} as in the file of weights. */
  constructor(config, tensors, algebra = new PlainAlgebra()) {
    Object.assign(this, { config, tensors, algebra });
    const { n_layers: L, stateless_before: before = 0, stateless_after: after = 0 } = config;
    this.D = config.d_model;
    this.K = config.d_model / config.n_heads;
    this.parameters = Object.values(tensors).reduce((sum, { data }) => sum + data.length, 0);
    this.embedding = this.tensor("embedding.weight"); // (V D)
    this.encoder = Array.from({ length: L }, (_, l) => this.block(`encoder.${l}`));
    this.decoder = Array.from({ length: before + L + after }, (_, i) => ({
      ...this.block(`decoder.${i}`),
      ...(i >= before && i < before + L ? this.reader(`decoder.${i}`, i - before) : {}),
    }));
    this.writers = Array.from({ length: L }, (_, l) => this.writer(l));
    this.normHead = config.head_norm ? this.tensor("norm_head.weight") : null;
    this.head = this.map("head");
    this.start = Float64Array.from(this.tensor("initial_slots")); // (L S D)
  }

  // ---------------------------------------------------------------------------------------------- answer

  /** Begin an event. What the slots have to say is the same for all its tokens, so it is computed once. */
  open(memory) {
    const past = () => new Rows(this.heads("self")[1] * this.K);
    return {
      length: 0,
      cache: this.decoder.map(() => ({ keys: past(), values: past() })),
      slots: this.decoder.map((layer) => (layer.memory && memory ? this.slotsOf(layer, memory) : null)),
    };
  }

  /** Read on: `ids` after all that the event holds. Returns { logits (V) of the last one, read: L times (T S) }. */
  extend(event, ids) {
    const T = ids.length, read = [];
    let x = this.embed(ids); // (T D)
    this.decoder.forEach((layer, i) => {
      x = add(x, this.lookBack(layer, x, T, event, event.cache[i]));
      if (event.slots[i]) {
        const { y, weights } = this.lookAtSlots(layer, x, T, event.length, event.slots[i]);
        x = add(x, y);
        read.push(weights);
      }
      x = add(x, this.feedForward(layer, x, T));
    });
    event.length += T;
    const last = x.subarray((T - 1) * this.D); // (1 D)
    return { logits: this.algebra.linear(this.head, this.normHead ? rmsNorm(last, this.normHead) : last, 1), read };
  }

  /** Causal self-attention: (T D) -> (T D). The event's keys and values grow by T rows. */
  lookBack({ normAttention, attention }, x, T, event, { keys, values }) {
    const h = rmsNorm(x, normAttention), first = event.length;
    const q = rotate(this.algebra.linear(attention.q, h, T), T, this.K, first); // (T Hq K)
    keys.push(rotate(this.algebra.linear(attention.k, h, T), T, this.K, first));
    values.push(this.algebra.linear(attention.v, h, T));
    const sizes = { T, M: keys.count, K: this.K, ...attention, sees: (t) => first + t + 1 };
    return this.algebra.linear(attention.out, attend(q, keys.store, values.store, sizes).out, T);
  }

  /** Keys and values of one layer's slots, (S Hkv K) each. Slots have no order, so nothing is rotated. */
  slotsOf({ bank, normSlots, memory: attention }, memory) {
    const S = this.config.n_slots, slots = rmsNorm(this.bank(memory, bank), normSlots);
    return { keys: this.algebra.linear(attention.k, slots, S), values: this.algebra.linear(attention.v, slots, S) };
  }

  /** Memory cross-attention: y (T D), and the weights (T S) with which each token looked at each slot. */
  lookAtSlots({ normMemory, memory: attention }, x, T, first, { keys, values }) {
    const q = rotate(this.algebra.linear(attention.q, rmsNorm(x, normMemory), T), T, this.K, first); // (T Hq K)
    const { out, weights } = attend(q, keys, values, { T, M: this.config.n_slots, K: this.K, ...attention });
    return { y: this.algebra.linear(attention.out, out, T), weights };
  }

  /** SwiGLU: (T D) -> (T D) */
  feedForward({ normFeedforward, toHidden, toOut }, x, T) {
    const hidden = this.algebra.linear(toHidden, rmsNorm(x, normFeedforward), T); // (T 2F)
    return this.algebra.linear(toOut, gatedUnit(hidden, T), T);
  }

  // ---------------------------------------------------------------------------------------------- remember

  /**
   * The memory after the finished event `ids`, in steps: a generator, so that a slow device can breathe in between.
   * `hold` puts a number in the place of every gate: 0 keeps all slots, 1 rewrites them whole; null leaves them learned.
   * Returns { memory (L S D), gate (L S), write: L times (S T) }.
   */
  *remembering(ids, memory, hold = null) {
    const T = ids.length, { n_slots: S, n_layers: L } = this.config;
    const after = new Float64Array(memory.length), gate = new Float64Array(L * S), write = [];
    let x = this.embed(ids);
    for (let l = 0; l < L; l++) {
      x = this.encode(this.encoder[l], x, T); // the event as layer l sees it; the encoder never sees the memory
      yield l;
      const slots = this.bank(memory, l), { update, weights } = this.ask(this.writers[l], slots, x, T);
      for (let s = 0; s < S; s++) {
        const g = hold ?? this.gateOf(this.writers[l], slots, update, s);
        gate[l * S + s] = g;
        for (let d = 0, at = s * this.D; d < this.D; d++, at++) {
          after[l * S * this.D + at] = g * update[at] + (1 - g) * slots[at];
        }
      }
      write.push(weights);
    }
    return { memory: after, gate, write };
  }

  remember(ids, memory, hold = null) {
    const steps = this.remembering(ids, memory, hold);
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
    }
  }

  /** One encoder layer, every token sees every token: (T D) -> (T D) */
  encode(layer, x, T) {
    const { attention } = layer, h = rmsNorm(x, layer.normAttention);
    const [q, k] = [attention.q, attention.k].map((map) => rotate(this.algebra.linear(map, h, T), T, this.K));
    const { out } = attend(q, k, this.algebra.linear(attention.v, h, T), { T, M: T, K: this.K, ...attention });
    const a = add(x, this.algebra.linear(attention.out, out, T));
    return add(a, this.feedForward(layer, a, T));
  }

  /** Memory attention: the slots (S D) ask the event (T D). Keys have positions, slots have none; they have names. */
  ask({ normStm, names, normEvent, attention }, slots, x, T) {
    const S = this.config.n_slots, named = rmsNorm(slots, normStm), event = rmsNorm(x, normEvent);
    const q = this.algebra.linear(attention.q, names ? add(named, names) : named, S); // (S Hq K)
    const k = rotate(this.algebra.linear(attention.k, event, T), T, this.K); // (T Hkv K)
    const v = this.algebra.linear(attention.v, event, T);
    const { out, weights } = attend(q, k, v, { T: S, M: T, K: this.K, ...attention }); // (S H K), (S T)
    return { update: this.algebra.linear(attention.out, out, S), weights };
  }

  /** g = sigmoid(a . old + c . new + b): how much of slot s gives way */
  gateOf({ gate: { weight, bias } }, slots, update, s) {
    let sum = bias[0];
    for (let d = 0, at = s * this.D; d < this.D; d++, at++) sum += weight[d] * slots[at] + weight[this.D + d] * update[at];
    return sigmoid(sum);
  }

  // ---------------------------------------------------------------------------------------------- weights by name

  embed(ids) {
    const x = new Float64Array(ids.length * this.D);
    ids.forEach((id, t) => x.set(this.embedding.subarray(id * this.D, (id + 1) * this.D), t * this.D));
    return x;
  }

  /** The slots (S D) of layer l, a view into the memory. */
  bank(memory, l) {
    const size = this.config.n_slots * this.D;
    return memory.subarray(l * size, (l + 1) * size);
  }

  heads(place) {
    return this.config[`${place}_heads`] ?? [this.config.n_heads, this.config.n_heads];
  }

  /** The numbers called `name`; those of one layer where the first axis counts layers. */
  tensor(name, layer = null) {
    const found = this.tensors[name];
    if (!found) throw new Error(`the weights hold no ${name}; config.json and the file of weights are not of one model`);
    if (layer === null) return found.data;
    const size = found.data.length / found.shape[0];
    return found.data.subarray(layer * size, (layer + 1) * size);
  }

  map(name, layer = null) {
    const [outputs, inputs] = this.tensors[`${name}.weight`]?.shape.slice(-2) ?? [];
    const bias = this.tensors[`${name}.bias`] ? this.tensor(`${name}.bias`, layer) : null;
    return this.algebra.adopt({ weight: this.tensor(`${name}.weight`, layer), bias, inputs, outputs });
  }

  attention(name, place, layer = null) {
    const [queryHeads, kvHeads] = this.heads(place);
    const [q, k, v, out] = ["q", "k", "v", "out"].map((part) => this.map(`${name}.to_${part}`, layer));
    return { q, k, v, out, queryHeads, kvHeads };
  }

  /** What encoder and decoder layers share. */
  block(name) {
    return {
      normAttention: this.tensor(`${name}.norm_attention.weight`),
      attention: this.attention(`${name}.attention`, "self"),
      normFeedforward: this.tensor(`${name}.norm_feedforward.weight`),
      toHidden: this.map(`${name}.feedforward.to_hidden`),
      toOut: this.map(`${name}.feedforward.to_out`),
    };
  }

  /** What a decoder layer needs to read bank number `bank` of the memory. */
  reader(name, bank) {
    const [normMemory, normSlots] = ["memory", "slots"].map((part) => this.tensor(`${name}.norm_${part}.weight`));
    return { bank, normMemory, normSlots, memory: this.attention(`${name}.memory`, "cross") };
  }

  /** What rewrites the slots of layer l. */
  writer(l) {
    return {
      normStm: this.tensor("memory.norm_stm.weight", l),
      normEvent: this.tensor("memory.norm_event.weight", l),
      names: this.config.slot_embeddings ? this.tensor("memory.names", l) : null,
      attention: this.attention("memory.attention", "memory", l),
      gate: { weight: this.tensor("memory.gate.to_gate.weight", l), bias: this.tensor("memory.gate.to_gate.bias", l) },
    };
  }
}
