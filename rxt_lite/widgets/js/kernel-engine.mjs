// The engine whose model lives in a notebook's kernel. Tokens are made here, numbers there; arrays travel as bytes.
//
//   to the kernel      { id, command: "answer" | "remember", ids, hold } and the memory
//   from the kernel    { id, token }, ... then { id, done, ids } and arrays; or { id, error }

import { Tokenizer, checkedQuery } from "./tokenizer.mjs";

const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

export class KernelEngine {
  constructor(model) {
    Object.assign(this, { model, about: model.get("about"), tokenizer: new Tokenizer(model.get("tokenizer")) });
    Object.assign(this, { start: floats(model.get("start")), parameters: model.get("parameters"), name: "PyTorch in the kernel" });
    [this.waiting, this.count] = [new Map(), 0];
    model.on("msg:custom", (content, buffers) => this.receive(content, buffers));
  }

  query(text) {
    return checkedQuery(text, this);
  }

  labels(ids) {
    return ids.map((id) => this.tokenizer.label(id));
  }

  request(content, memory, onToken = () => {}) {
    const id = this.count++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onToken });
      this.model.send({ id, ...content }, undefined, [memory.slice().buffer]);
    });
  }

  receive({ id, token, error, ...content }, buffers) {
    const { resolve, reject, onToken } = this.waiting.get(id) ?? {};
    if (!resolve) return;
    if (token !== undefined) return onToken(token);
    this.waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve({ ...content, arrays: buffers.map(floats) });
  }

  async answer(ids, memory, onToken = () => {}) {
    const said = [];
    const { arrays } = await this.request({ command: "answer", ids }, memory, (token) => {
      said.push(token);
      onToken(this.tokenizer.decode(said), said);
    });
    return { ids: said, text: this.tokenizer.decode(said), read: arrays };
  }

  async remember(ids, memory, hold = null) {
    const { arrays: [after, gate, ...write] } = await this.request({ command: "remember", ids, hold }, memory);
    return { memory: after, gate, write };
  }
}
