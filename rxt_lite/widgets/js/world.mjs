// The sentences of the small world: which facts a message tells, how to ask for one, and whether an answer holds it.
// The same rules as rxt_lite/data/world.py and dialogues.py; the sentences come with config.json.

const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const anyOf = (words) => words.map(literal).join("|");

export class World {
  constructor({ attributes, refusal }) {
    Object.assign(this, { attributes, refusal });
    this.patterns = Object.entries(attributes).flatMap(([name, { entities, values, tell, change }]) =>
      [...tell, ...change].map((frame) => {
        const sentence = literal(frame).replace("\\{e\\}", `(?<e>${anyOf(entities)})`).replace("\\{v\\}", `(?<v>${anyOf(values)})`);
        return [name, new RegExp(`(?<![\\p{L}\\p{N}_])${sentence}`, "gu")];
      }));
  }

  /** The facts {attribute, entity, value} that the sentences of `text` tell or change, in their order. */
  factsTold(text) {
    const found = new Map(); // "Now Ben has a pony." holds "Ben has a pony." too: the same fact, once
    for (const [attribute, pattern] of this.patterns) {
      for (const { index, groups: { e: entity, v: value } } of text.matchAll(pattern)) {
        found.set(`${attribute} ${entity} ${value}`, { attribute, entity, value, index });
      }
    }
    return [...found.values()].sort((a, b) => a.index - b.index).map(({ index, ...fact }) => fact);
  }

  /** The facts that hold after `texts`, each with the turn (from 1) that told it last. */
  factsKnown(texts) {
    const known = new Map();
    texts.forEach((text, i) => {
      for (const fact of this.factsTold(text)) known.set(`${fact.attribute} ${fact.entity}`, { ...fact, turn: i + 1 });
    });
    return [...known.values()];
  }

  question({ attribute, entity }) {
    return this.attributes[attribute].ask[0].replace("{e}", entity);
  }

  statement({ attribute, entity, value }) {
    return this.attributes[attribute].answer.replace("{e}", entity).replace("{v}", value);
  }

  /** Does the answer hold the value as whole words, and no other value of that attribute? */
  isRight({ attribute, value }, answer) {
    const holds = (words) => new RegExp(`(?<![\\p{L}\\p{N}_])${literal(words)}(?![\\p{L}\\p{N}_])`, "iu").test(answer);
    return this.attributes[attribute].values.every((other) => holds(other) === (other === value));
  }
}
