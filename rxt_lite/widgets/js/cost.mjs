// What a turn costs, counted from shapes: multiply-adds of all matrix products, as in rxt_lite/experiments/cost.py.
//
//   rxt             answer with the slots at hand, then rewrite them
//   reread          a stateless decoder of the same shape reads the whole transcript at every turn
//   prefix_cached   the same decoder with a perfect cache of all keys and values

function attentionMacs({ d_model: D, n_heads }, [queryHeads, kvHeads], queries, keys, newKeys) {
  const K = D / n_heads, H = Math.max(queryHeads, kvHeads);
  return queries * (queryHeads + H) * K * D + 2 * newKeys * kvHeads * K * D + 2 * queries * keys * H * K;
}

const heads = (config, place) => config[`${place}_heads`] ?? [config.n_heads, config.n_heads];
const feedForwardMacs = (config, tokens) => 3 * tokens * config.d_model * config.d_ff;

/** `tokens` new tokens in one pass after `past` cached ones, with or without slots. */
function decodeMacs(config, tokens, past, slots) {
  const { n_layers: L, stateless_before: before = 0, stateless_after: after = 0, d_model: D, vocab_size: V } = config;
  const layer = attentionMacs(config, heads(config, "self"), tokens, past + tokens, tokens) + feedForwardMacs(config, tokens);
  const reading = slots ? attentionMacs(config, heads(config, "cross"), tokens, config.n_slots, 0) : 0;
  return (before + L + after) * layer + L * reading + tokens * D * V;
}

/** Read `prompt` tokens at once, then feed the answer back token by token; its last token is not fed. */
function answerMacs(config, prompt, past, answer, slots) {
  let macs = decodeMacs(config, prompt, past, slots);
  for (let t = 0; t + 1 < answer; t++) macs += decodeMacs(config, 1, past + prompt + t, slots);
  const K = config.d_model / config.n_heads;
  if (slots) macs += config.n_layers * 2 * config.n_slots * heads(config, "cross")[1] * K * config.d_model;
  return macs;
}

/** Encode an event and let the slots read it. */
function updateMacs(config, tokens) {
  const { n_slots: S, d_model: D } = config;
  const encode = attentionMacs(config, heads(config, "self"), tokens, tokens, tokens) + feedForwardMacs(config, tokens);
  return config.n_layers * (encode + attentionMacs(config, heads(config, "memory"), S, tokens, tokens) + 2 * D * S);
}

/** Multiply-adds of a turn with so many query and answer tokens after `past` tokens of conversation. */
export function turnMacs(config, past, query, answer) {
  const late = past ? 1 : 0; // the last answer's [EOS] is in the transcript but not yet in the cache
  return {
    rxt_answer: answerMacs(config, query, 0, answer, true),
    rxt_update: updateMacs(config, query + answer),
    reread: answerMacs(config, past + query, 0, answer, false),
    prefix_cached: answerMacs(config, query + late, past - late, answer, false),
  };
}
