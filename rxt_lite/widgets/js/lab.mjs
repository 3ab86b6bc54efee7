// Experiments at hand: all that one can do to a memory, because a memory is a value.

import { button, choice, folded, h, plainTable } from "./drawing.mjs";
import { memoryFile, openMemoryFile } from "./memory-file.mjs";
import { lesionPanel } from "./panels.mjs";
import { swap } from "./conversation.mjs";

const group = (title, ...children) => h("div", { class: "rxt-group", role: "group", "aria-label": title }, h("p", { class: "rxt-title" }, title), ...children);

/** A button that opens a file dialog. */
function picker(text, accept, onfiles, multiple = false) {
  const input = h("input", { type: "file", accept, multiple, hidden: true, "aria-label": text, onchange: () => onfiles([...input.files]).finally(() => (input.value = "")) });
  return h("span", {}, input, button(text, () => input.click()));
}

export class Lab {
  /** `live`: { talk, other, engine, layer, act(what, action), refresh() } of live.mjs. */
  constructor(live) {
    this.live = live;
    this.slot = h("select", { "aria-label": "Slot" });
    this.moment = h("select", { "aria-label": "Moment" });
    this.result = h("div", { class: "rxt-result", "aria-live": "polite" });
    this.holds = h("div", {}, this.holding());
    const act = (name, action) => button(name, () => live.act(name, action));
    this.element = h("div", { role: "group", class: "rxt-lab", "aria-label": "Experiments" }, h("p", { class: "rxt-head3" }, "Experiments"),
      h("div", { class: "rxt-groups" },
        group("Empty a slot", h("p", {}, "Put one slot of the chosen layer back to what it was before anything was said."),
          this.slot, act("Empty it", () => this.lesion()), act("Try every slot", () => this.tryEverySlot())),
        group("Hold the gates", this.holds),
        group("Go back", this.moment, act("Rewind", () => this.rewind()), act("Clear the memory", () => live.talk.clear())),
        group("Two chats", act("Copy this chat to the other", () => live.replaceOther(live.talk.fork())),
          act("Swap their memories", () => swap(live.talk, live.other))),
        group("Keep a memory", act("Download", () => this.download()), picker("Open a memory", ".safetensors", (files) => live.act("Open a memory", () => this.open(files[0])))),
      ), this.result);
  }

  holding() {
    const { live } = this, chosen = live.talk?.hold ?? null;
    const options = [[null, "as learned"], [0, "at 0: nothing is written"], [1, "at 1: nothing is kept"]];
    return choice("Gates of the updates to come", `rxt-hold-${live.id}`, options, chosen, (value) => (live.talk.hold = value));
  }

  /** Fill what depends on the conversation. */
  refresh() {
    const { live } = this, { n_slots: S } = live.engine.about.config, at = this.slot.value;
    this.slot.replaceChildren(...Array.from({ length: S }, (_, s) => h("option", { value: s, selected: `${s}` === at }, `slot ${s + 1}`)));
    const name = (moment, i) => `${i}: ${moment.kind === "turn" ? `after “${moment.label}”` : moment.label}`;
    this.moment.replaceChildren(...live.talk.moments.map((moment, i) => h("option", { value: i }, name(moment, i))));
    this.moment.value = Math.max(0, live.talk.moments.length - 2);
    this.holds.replaceChildren(this.holding());
  }

  lesion() {
    const { talk, layer } = this.live, slot = Number(this.slot.value);
    talk.edit(`slot ${slot + 1} of layer ${layer + 1} emptied`, talk.without(layer, slot));
  }

  /** Empty each slot of the layer in turn, on copies, and ask for every known fact. */
  async tryEverySlot() {
    const { talk, layer, engine, statement } = this.live, facts = await talk.check(), results = [];
    if (!facts.length) throw new Error("nothing was told yet that could be lost; tell it a fact first");
    for (let s = 0; s < engine.about.config.n_slots; s++) results.push(await talk.check(talk.without(layer, s)));
    const lost = facts.map((fact, i) => [statement(fact), fact.right ? results.flatMap((of, s) => (of[i].right ? [] : [s + 1])) : []]);
    const said = lost.map(([fact, slots]) => [fact, slots.length ? slots.join(", ") : "none"]);
    this.result.replaceChildren(lesionPanel(layer, facts, results, statement),
      folded("The same as a table", plainTable("Facts, and the slots whose loss loses them", ["fact", "slots"], said)));
  }

  rewind() {
    this.live.talk.rewind(Number(this.moment.value));
  }

  download() {
    const url = URL.createObjectURL(new Blob([memoryFile(this.live.talk)], { type: "application/octet-stream" }));
    h("a", { href: url, download: "memory.safetensors" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async open(file) {
    const { memory, events } = openMemoryFile(await file.arrayBuffer(), this.live.engine);
    this.live.talk.edit(`a memory of ${events} events opened`, memory);
  }
}
