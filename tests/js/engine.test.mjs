// Facts about the engine in the page. RXT_WEB names a folder written by `rxt-lite export-web`; RXT_JS the modules.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const load = (name) => import(pathToFileURL(`${process.env.RXT_JS}/${name}.mjs`));
const { readSafetensors, writeSafetensors, half } = await load("safetensors");
const { PlainAlgebra } = await load("algebra");
const { fastestAlgebra } = await load("kernel");
const { RxT } = await load("rxt");
const { LocalEngine } = await load("local");
const { Conversation, swap } = await load("conversation");
const { Tokenizer } = await load("tokenizer");
const { World } = await load("world");
const { turnMacs } = await load("cost");

const json = (name) => JSON.parse(readFileSync(`${process.env.RXT_WEB}/${name}`, "utf8"));
const bytes = (name) => new Uint8Array(readFileSync(`${process.env.RXT_WEB}/${name}`)).buffer;
const about = json("config.json"), reference = json("reference.json"), asked = reference.map(({ query }) => query);
const { memory: stm, gate } = readSafetensors(bytes("reference.safetensors")).tensors;
const engineWith = (algebra) => LocalEngine.from(about, json("tokenizer.json"), bytes(about.weights.file), algebra);
const engine = await engineWith(new PlainAlgebra());
const largest = (x) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const furthest = (x, y) => x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i])), 0);

async function talk(engine, texts = asked) {
  const conversation = new Conversation(engine);
  for (const text of texts) await conversation.say(text);
  return conversation;
}

for (const [name, algebra] of [["plain JavaScript", () => new PlainAlgebra()], ["SIMD", fastestAlgebra]]) {
  test(`with ${name} answers, memories and gates of a conversation are PyTorch's`, async () => {
    const simd = await algebra();
    assert.equal(simd.name, name === "SIMD" ? "WebAssembly SIMD" : "JavaScript");
    const { turns } = await talk(await engineWith(simd)), size = stm.data.length / (reference.length + 1);
    turns.forEach((turn, n) => {
      assert.deepEqual(turn.ids, reference[n].event);
      assert.equal(turn.answer, reference[n].answer);
      const after = stm.data.subarray((n + 1) * size, (n + 2) * size);
      assert.ok(furthest(turn.memory, after) < 1e-5);
      assert.ok(furthest(turn.gate, gate.data.subarray(n * turn.gate.length, (n + 1) * turn.gate.length)) < 1e-5);
    });
  });
}

test("one token at a time equals all at once", () => {
  const ids = reference[0].event, whole = engine.model.open(stm.data.subarray(0, engine.start.length));
  const { logits } = engine.model.extend(whole, ids), pieces = engine.model.open(engine.start);
  let last;
  for (const id of ids) last = engine.model.extend(pieces, [id]);
  assert.ok(furthest(logits, last.logits) < 1e-5 * largest(logits));
});

test("attention shares add up to one", async () => {
  const { turns: [, turn] } = await talk(engine, asked.slice(0, 2)), { n_slots: S } = about.config;
  for (const weights of turn.read) assert.ok(Math.abs(weights.subarray(0, S).reduce((a, b) => a + b) - 1) < 1e-5);
  for (const weights of turn.write) assert.ok(Math.abs(weights.subarray(0, turn.ids.length).reduce((a, b) => a + b) - 1) < 1e-5);
});

test("fewer key heads, fewer query heads, and layers without memory are computed", () => {
  for (const changes of json("shapes.json")) {
    const { config, tokens, memory, logits, after } = changes;
    const tensors = Object.fromEntries(Object.entries(changes.weights).map(([name, { shape, data }]) => [name, { shape, data: Float32Array.from(data) }]));
    const model = new RxT(config, tensors), start = Float32Array.from(memory);
    assert.ok(furthest(model.extend(model.open(start), tokens).logits, logits) < 1e-4, JSON.stringify(changes.config));
    assert.ok(furthest(model.remember(tokens, start).memory, after) < 1e-5);
  }
});

test("answering leaves the memory alone, remembering makes a new one", async () => {
  const before = engine.start.slice(), conversation = await talk(engine, asked.slice(0, 1));
  assert.deepEqual(engine.start, before);
  assert.notEqual(conversation.memory, engine.start);
});

test("gates held at 0 keep every slot, at 1 rewrite it whole", () => {
  const ids = reference[0].event, { memory: kept } = engine.model.remember(ids, engine.start, 0);
  assert.deepEqual(kept, engine.start);
  assert.ok(engine.model.remember(ids, engine.start, 1).gate.every((g) => g === 1));
});

test("an emptied slot is as it was before anything was said, all others stay", async () => {
  const conversation = await talk(engine, asked.slice(0, 2)), { d_model: D } = about.config;
  const changed = conversation.without(0, 1);
  assert.deepEqual(changed.subarray(D, 2 * D), engine.start.subarray(D, 2 * D));
  assert.deepEqual(changed.subarray(2 * D), conversation.memory.subarray(2 * D));
});

test("a fork goes its own way, a rewind comes back, a swap exchanges, clear forgets", async () => {
  const a = await talk(engine, asked.slice(0, 2)), b = a.fork(), early = a.moments[1].memory, late = a.memory;
  await b.say(asked[2]);
  assert.equal(a.memory, late);
  assert.notEqual(b.memory, late);
  const theirs = b.memory;
  swap(a, b);
  assert.deepEqual([a.memory, b.memory], [theirs, late]);
  a.rewind(1);
  assert.equal(a.memory, early);
  a.clear();
  assert.equal(a.memory, engine.start);
});

test("500 turns keep no more than a window of moments", async () => {
  const conversation = new Conversation(engine);
  for (let n = 0; n < 500; n++) await conversation.say(asked[n % asked.length]);
  assert.equal(conversation.moments.length, 32);
  assert.equal(conversation.now.turn, 500);
  assert.ok(conversation.memory.every(Number.isFinite));
});

test("an empty message and one that is too long are refused in a sentence", () => {
  assert.throws(() => engine.query("  "), /empty/);
  assert.throws(() => engine.query("hat ".repeat(80)), /fewer words/);
});

test("special tokens in a message are text", () => {
  const ids = engine.query("[EOS] [A]");
  assert.ok(ids.slice(2, -1).every((id) => id > 6));
  assert.equal(engine.tokenizer.decode(ids), "[EOS] [A]");
});

test("tokens and texts are those of the Python library on every drawn string", () => {
  const tokenizer = new Tokenizer(json("tokenizer.json"));
  const cases = json("tokens.json");
  assert.ok(cases.length >= 4000);
  for (const { text, ids, decoded } of cases) {
    assert.deepEqual(tokenizer.query(text), ids, JSON.stringify(text));
    assert.equal(tokenizer.decode(ids), decoded, JSON.stringify(text));
  }
});

test("facts are found and answers judged as in Python", () => {
  const world = new World(about.world);
  for (const { text, facts, answer, fact, right } of json("facts.json")) {
    assert.deepEqual(world.factsTold(text).map(({ attribute, entity, value }) => [attribute, entity, value]), facts, text);
    if (fact) assert.equal(world.isRight(fact, answer), right, answer);
  }
});

test("multiply-adds are those of the Python library", () => {
  for (const { past, query, answer, macs } of json("costs.json")) assert.deepEqual(turnMacs(about.config, past, query, answer), macs);
});

test("halves are read exactly", () => {
  for (const [bits, value] of [[0, 0], [0x8000, -0], [1, 2 ** -24], [0x03ff, 1023 * 2 ** -24], [0x0400, 2 ** -14], [0x3c00, 1], [0xc000, -2], [0x7bff, 65504], [0xfc00, -Infinity]]) {
    assert.ok(Object.is(half(bits), value), bits.toString(16));
  }
  assert.ok(Number.isNaN(half(0x7e00)));
});

test("what was written is read back, with what stands beside it", () => {
  const data = Float32Array.of(1, -2.5, 1e-9, 4, 5, 6), whose = { rxt_lite: '{"events":3}' };
  const { tensors, metadata } = readSafetensors(writeSafetensors({ memory: { shape: [2, 3], data } }, whose).buffer);
  assert.deepEqual(tensors, { memory: { shape: [2, 3], data } });
  assert.deepEqual(metadata, whose);
});

test("a file that is cut off, of another kind or for another model is refused in a sentence", () => {
  const file = bytes(about.weights.file);
  for (const length of [0, 5, 100, file.byteLength - 1]) assert.throws(() => readSafetensors(file.slice(0, length)), /cut off/);
  assert.throws(() => readSafetensors(new TextEncoder().encode("<!doctype html><title>404</title>").buffer), /not safetensors/);
  assert.throws(() => new RxT(about.config, {}), /hold no embedding\.weight/);
});
