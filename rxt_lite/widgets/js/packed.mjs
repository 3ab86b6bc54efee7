// Arrays in a page or a notebook: two bytes a number, with one scale, as base64. Good for pictures, not for computing.

/** { scale, data } -> Float32Array */
export function unpacked({ scale, data }) {
  const view = new DataView(Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => (view.getInt16(2 * i, true) * scale) / 32767);
}

/** A recorded conversation, as rxt_lite/widgets/packing.py writes it, with its arrays unpacked: the moments of a memory. */
export function unpackedTrace({ config, start, events }) {
  const { n_layers: L } = config, layers = (packed) => {
    const whole = unpacked(packed), size = whole.length / L;
    return Array.from({ length: L }, (_, l) => whole.subarray(l * size, (l + 1) * size));
  };
  const moments = events.map(({ memory, gate, read, write, ...rest }) => ({
    ...rest, memory: unpacked(memory), gate: gate && unpacked(gate), read: layers(read), write: layers(write) }));
  return { config, moments: [{ label: "start", memory: unpacked(start) }, ...moments] };
}
