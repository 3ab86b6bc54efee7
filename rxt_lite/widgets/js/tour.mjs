// Six things to try, for somebody who has never seen a memory.

import { button, h } from "./drawing.mjs";

const say = (...texts) => async (live) => {
  for (const text of texts) await live.say(text);
};

const STEPS = [
  ["Tell it something", "One message, one event. First the answer streams, then the memory is rewritten. Watch the difference beside the chat: which slots moved?",
    say("Tom has the hat.")],
  ["Talk about something else, then ask", "The model never sees an earlier message again. Whatever it knows about the hat now comes from the slots.",
    say("It is raining again.", "The ball is in the garden.", "Who has the hat?")],
  ["Change a fact", "A memory must also let go. Does the answer follow? Look at the gates: near 1, a slot gives way.",
    say("Now Ben has the hat.", "Who has the hat?")],
  ["Find where a fact lives", "Each slot of the layer is emptied in turn, on a copy, and every told fact is asked. Where one slot holds a fact alone, losing it loses the fact.",
    (live) => live.act("Try every slot", () => live.lab.tryEverySlot())],
  ["Give the memory to somebody else", "Chat B hears another story. Then the two memories are exchanged, and chat A is asked: it answers from what B was told.",
    async (live) => {
      await live.say("Lucy has the hat.", 1);
      await live.act("Swap their memories", () => live.swap());
      await live.say("Who has the hat?", 0);
    }],
  ["Take the memory away", "The same question to an empty memory. What is left is a guess: this is what the model knows without remembering.",
    async (live) => {
      await live.act("Clear the memory", () => live.talk.clear());
      await live.say("Who has the hat?");
    }],
];

export class Tour {
  constructor(live) {
    [this.live, this.at] = [live, 0];
    this.text = h("div", { "aria-live": "polite" });
    this.back = button("Back", () => this.go(-1));
    this.next = button("Next", () => this.go(1));
    this.element = h("div", { role: "group", class: "rxt-tour", "aria-label": "A tour in six steps" }, this.text,
      h("div", { class: "rxt-row" }, this.back, button("Do it", () => this.doIt(), { class: "rxt-main" }), this.next));
    this.go(0);
  }

  go(by) {
    this.at = Math.min(STEPS.length - 1, Math.max(0, this.at + by));
    const [title, text] = STEPS[this.at];
    this.text.replaceChildren(h("p", { class: "rxt-head3" }, `Tour, step ${this.at + 1} of ${STEPS.length}: ${title}`), h("p", {}, text));
    this.back.setAttribute("aria-disabled", this.at === 0);
    this.next.setAttribute("aria-disabled", this.at === STEPS.length - 1);
  }

  async doIt() {
    const [, , action] = STEPS[this.at];
    if (await this.live.ready()) await action(this.live).catch((error) => this.live.tell(error.message));
  }
}
