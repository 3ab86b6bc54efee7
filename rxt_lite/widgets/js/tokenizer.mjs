// Text to token ids and back: byte-level BPE, read from the tokenizer.json that Python reads too.
//
//   query   [BOS] [Q] What colour is the hat? [A]
//   event   [BOS] [Q] What colour is the hat? [A] The hat is red. [EOS]
//
// The frame is written as ids, never as text: who types "[EOS]" has typed five characters.

export const PAD = 0, BOS = 2, EOS = 3, Q = 5, A = 6, SPECIALS = 7;

// GPT-2's pieces. \s is not the white space of the tokenizers library; \p{White_Space} is.
const PIECES = new RegExp(
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+|" +
    "\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", "gu");
const AROUND = /^[\p{White_Space}\x1c-\x1f]+|[\p{White_Space}\x1c-\x1f]+$/gu; // what Python's strip() takes away
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g; // what would steer a terminal instead of being read

/** The printable character that stands for each byte: itself where it is one, else the next free one from U+0100. */
function byteCharacters() {
  const characters = [];
  for (let byte = 0, free = 256; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    characters.push(String.fromCharCode(printable ? byte : free++));
  }
  return characters;
}

/** The settings of tokenizer.json that this reader knows; anything else would be read wrongly, so it is refused. */
function checkTokenizer({ model, normalizer, pre_tokenizer: pre }) {
  const known = model?.type === "BPE" && !normalizer && pre?.type === "ByteLevel" && pre.add_prefix_space && pre.use_regex;
  if (!known) throw new Error("tokenizer.json is not a byte-level BPE as rxt_lite writes it; export the model again");
}

export class Tokenizer {
  constructor(json) {
    checkTokenizer(json);
    this.ids = json.model.vocab; // {"Ġthe": 263, ...}
    this.texts = Object.keys(this.ids).sort((a, b) => this.ids[a] - this.ids[b]);
    this.ranks = new Map(json.model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
    this.characters = byteCharacters();
    this.bytes = new Map(this.characters.map((character, byte) => [character, byte]));
  }

  /** One piece: join the pair of neighbours that was learnt first, until none is left. */
  merge(piece) {
    const parts = [...piece];
    for (;;) {
      let best = -1, bestRank = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < bestRank) [best, bestRank] = [i, rank];
      }
      if (best < 0) return parts;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
  }

  encode(text) {
    if (!text) return [];
    const pieces = (text.startsWith(" ") ? text : ` ${text}`).match(PIECES) ?? [];
    const asCharacters = (piece) => Array.from(new TextEncoder().encode(piece), (byte) => this.characters[byte]).join("");
    return pieces.flatMap((piece) => this.merge(asCharacters(piece)).map((part) => this.ids[part]));
  }

  /** [BOS] [Q] text [A], after which the model writes its answer. */
  query(text) {
    return [BOS, Q, ...this.encode(text.replace(AROUND, "")), A];
  }

  /** The text of `ids` without special tokens, white space around it, or anything that is not to be read. */
  decode(ids) {
    return this.raw(ids.filter((id) => id >= SPECIALS)).replace(AROUND, "").replace(CONTROLS, "\ufffd");
  }

  /** The text of one token, for a label. */
  label(id) {
    return id < SPECIALS ? this.texts[id] : this.raw([id]).replace(AROUND, "") || "␣";
  }

  raw(ids) {
    const bytes = ids.flatMap((id) => Array.from(this.texts[id] ?? "", (character) => this.bytes.get(character)));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes)); // keeps a leading U+FEFF
  }
}

/** Ids of [BOS] [Q] text [A], or one kind sentence why not. */
export function checkedQuery(text, { about, tokenizer }) {
  const ids = tokenizer.query(text), window = about.config.max_len;
  if (ids.length === 3) throw new Error("the message is empty; say something, or pick a message below");
  if (ids.length >= window) {
    throw new Error(`the message has ${ids.length} tokens, and one event holds ${window} with its answer; say it in fewer words`);
  }
  return ids;
}
