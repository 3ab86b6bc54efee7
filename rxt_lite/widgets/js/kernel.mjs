// The same linear map, four outputs at a time in WebAssembly SIMD. Optional: without it, plain JavaScript does the work.

import { PlainAlgebra } from "./algebra.mjs";

// rxt_lite/widgets/kernel.wat, translated by tools/kernel.py; a test translates it again and compares.
const WASM = "AGFzbQEAAAABCwFgB39/f39/f38AAg4BAmpzBm1lbW9yeQIAAQMCAQAHCgEGbGluZWFyAAAKmwIBmAICBX8FewNAIAAhByABIQggBiELIAIgBUEDdGohCgNAIAj9XQMA/V8hDSAI/V0DCP1fIQ79DAAAAAAAAAAAAAAAAAAAAAAhD/0MAAAAAAAAAAAAAAAAAAAAACEQIAIhCQNAIAn9CgMAIQwgDSAMIAf9XQMA/V/98gH98AEhDSAOIAwgB/1dAwj9X/3yAf3wASEOIAn9CgMIIQwgDyAMIAf9XQMQ/V/98gH98AEhDyAQIAwgB/1dAxj9X/3yAf3wASEQIAlBEGohCSAHQSBqIQcgCSAKSQ0ACyADIA0gD/3wAf0LBAAgAyAOIBD98AH9CwQQIANBIGohAyAIQRBqIQggC0EBayILDQALIAohAiAEQQFrIgQNAAsLAG4EbmFtZQJLAQARAAF3AQRiaWFzAgF4AwF5BAFUBQZpbnB1dHMGBmJsb2NrcwcCd2kIAmJpCQJ4aQoDZW5kCwRsZWZ0DAF2DQFhDgFiDwFjEAFkAxoBAAMABHJvd3MBB291dHB1dHMCBmlucHV0cw==";

const PAGE = 65536, SCRATCH = 8 * PAGE; // bytes for the rows of x, and as many for those of y
const aligned = (bytes) => Math.ceil(bytes / 16) * 16;

class SimdAlgebra extends PlainAlgebra {
  name = "WebAssembly SIMD";

  constructor(memory, linear) {
    super();
    Object.assign(this, { memory, kernel: linear, end: 2 * SCRATCH });
  }

  floats(at, count) {
    return new Float32Array(this.memory.buffer, at, count);
  }

  doubles(at, count) {
    return new Float64Array(this.memory.buffer, at, count);
  }

  reserve(bytes) {
    const at = this.end;
    this.end += aligned(bytes);
    const missing = this.end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  /** Copy the weights into the kernel's memory, in its order: block of four outputs, input, output. */
  adopt(map) {
    const { weight, bias, inputs, outputs } = map;
    if (inputs % 2 || inputs * 8 > SCRATCH || outputs * 8 > SCRATCH) return map; // an odd width is left to plain JavaScript
    const blocks = Math.ceil(outputs / 4), at = this.reserve(16 * blocks * inputs), biasAt = this.reserve(16 * blocks);
    const W = this.floats(at, 4 * blocks * inputs);
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) W[((o >> 2) * inputs + i) * 4 + (o & 3)] = weight[o * inputs + i];
    }
    if (bias) this.floats(biasAt, outputs).set(bias);
    return { ...map, at, biasAt, blocks };
  }

  linear(map, x, T) {
    if (map.at === undefined) return super.linear(map, x, T);
    const { inputs, outputs, blocks } = map, y = new Float64Array(T * outputs), wide = 4 * blocks;
    const atOnce = Math.floor(SCRATCH / 8 / Math.max(inputs, wide));
    for (let t = 0; t < T; t += atOnce) {
      const rows = Math.min(atOnce, T - t), out = this.doubles(SCRATCH, rows * wide);
      this.doubles(0, rows * inputs).set(x.subarray(t * inputs, (t + rows) * inputs));
      this.kernel(map.at, map.biasAt, 0, SCRATCH, rows, inputs, blocks);
      for (let r = 0; r < rows; r++) y.set(out.subarray(r * wide, r * wide + outputs), (t + r) * outputs);
    }
    return y;
  }
}

/** The fastest algebra that this browser allows. */
export async function fastestAlgebra() {
  try {
    const memory = new WebAssembly.Memory({ initial: (2 * SCRATCH) / PAGE });
    const bytes = Uint8Array.from(atob(WASM), (character) => character.charCodeAt(0));
    const { instance } = await WebAssembly.instantiate(bytes, { js: { memory } });
    return new SimdAlgebra(memory, instance.exports.linear);
  } catch {
    return new PlainAlgebra(); // no WebAssembly, none with SIMD, or a page that forbids it
  }
}
