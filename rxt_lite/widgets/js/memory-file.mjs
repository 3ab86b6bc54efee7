// A memory to keep: the file that rxt_lite/models/memory_file.py writes and reads, so it goes from page to Python and back.

import { readSafetensors, writeSafetensors } from "./safetensors.mjs";

/** The memory of a conversation as bytes. */
export function memoryFile({ engine: { about }, memory, now }) {
  const { n_layers: L, n_slots: S, d_model: D } = about.config;
  const whose = { format: 1, events: now.turn, ...about.identity };
  return writeSafetensors({ memory: { shape: [L, 1, S, D], data: memory } }, { rxt_lite: JSON.stringify(whose) });
}

/** { memory, events } of a file, for this engine's model only: slots mean nothing to other weights. */
export function openMemoryFile(buffer, { about }) {
  const { tensors, metadata } = readSafetensors(buffer), whose = metadata.rxt_lite ? JSON.parse(metadata.rxt_lite) : null;
  if (!whose || !tensors.memory) throw new Error("the file holds weights or something else, not a memory; pick one that this page or Conversation.save wrote");
  if (whose.weights !== about.identity.weights) throw new Error("this is the memory of another model; open it with its own");
  return { memory: tensors.memory.data, events: whose.events };
}
