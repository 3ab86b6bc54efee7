// Weights and memories in a file: the safetensors format, read and written.
//
//   8 bytes    length of the header, little-endian
//   header     JSON: {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {...}}
//   the rest   the numbers, row by row, little-endian
//
// Read are F32 and F16; whatever is stored, the numbers come out as Float32Array.

const WIDTH = { F32: 4, F16: 2 };

/** The number that 16 bits stand for: sign, 5 bits of exponent, 10 bits of fraction (IEEE 754 binary16). */
export function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24; // subnormal
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function numbers(buffer, begin, dtype, count) {
  const view = new DataView(buffer, begin, count * WIDTH[dtype]), out = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    out[i] = dtype === "F32" ? view.getFloat32(4 * i, true) : half(view.getUint16(2 * i, true));
  }
  return out;
}

/** ArrayBuffer -> { tensors: {name: {shape, data}}, metadata }. One error for a file that is cut off or not ours. */
export function readSafetensors(buffer) {
  const damaged = (why) => new Error(`the file is not safetensors, or it is cut off (${why}); fetch it again`);
  if (buffer.byteLength < 8) throw damaged(`${buffer.byteLength} bytes`);
  const length = Number(new DataView(buffer).getBigUint64(0, true)), start = 8 + length;
  if (start > buffer.byteLength) throw damaged(`${buffer.byteLength} bytes, the header alone wants ${start}`);
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw damaged("the header is not JSON");
  }
  const { __metadata__: metadata = {}, ...entries } = header, tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
    const count = shape.reduce((a, b) => a * b, 1);
    if (!(dtype in WIDTH)) throw new Error(`${name} is stored as ${dtype}; this reader knows ${Object.keys(WIDTH).join(" and ")}`);
    if (end - begin !== count * WIDTH[dtype]) throw damaged(`${name} has ${end - begin} bytes for ${count} numbers`);
    if (start + end > buffer.byteLength) throw damaged(`${buffer.byteLength} bytes, ${name} ends at ${start + end}`);
    tensors[name] = { shape, data: numbers(buffer, start + begin, dtype, count) };
  }
  return { tensors, metadata };
}

/** {name: {shape, data: Float32Array}} and metadata (texts) -> the bytes of a file, as F32. */
export function writeSafetensors(tensors, metadata = {}) {
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += 4 * data.length)] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padding = (8 - (text.length % 8)) % 8; // the numbers begin at a multiple of 8
  const bytes = new Uint8Array(8 + text.length + padding + end).fill(32); // the header is padded with spaces
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(text.length + padding), true);
  bytes.set(text, 8);
  let at = 8 + text.length + padding;
  for (const { data } of Object.values(tensors)) for (const x of data) view.setFloat32(at, x, true), (at += 4);
  return bytes;
}
