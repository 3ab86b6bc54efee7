// The two stateless arms, timed with the same engine: a decoder of the same shape, without memory, that reads a transcript.

const LONGEST = 3000; // tokens: rereading more would hold the page for long

/**
 * Milliseconds of the last turn for a decoder that rereads everything, and for one with a perfect cache of what was there
 * before. One pass over the transcript times both. Null where the transcript is no longer whole, or too long.
 */
export async function timeStateless(engine, turns) {
  const last = turns.at(-1), past = turns.slice(0, -1).flatMap(({ ids }) => ids);
  if (!engine.stateless || last.turn !== turns.length || past.length > LONGEST) return null;
  const event = engine.stateless(), began = performance.now();
  if (past.length) await engine.read(event, past);
  const cached = performance.now();
  await engine.read(event, last.ids.slice(0, last.from));
  for (const id of last.ids.slice(last.from, -1)) await engine.read(event, [id]);
  const done = performance.now();
  return { reread: done - began, prefix_cached: done - cached };
}
