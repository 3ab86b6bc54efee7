// The live page: a chat, and beside it the memory while it changes.
//
//   type a message -> the answer streams -> paint -> the memory is updated -> everything beside the chat is drawn anew

import { Chat } from "./chat.mjs";
import { Conversation, swap } from "./conversation.mjs";
import { button, choice, folded, h, lines, plainTable, short } from "./drawing.mjs";
import { Lab } from "./lab.mjs";
import { momentPanels, survivalPanel } from "./panels.mjs";
import { readSafetensors } from "./safetensors.mjs";
import { timeStateless } from "./stopwatch.mjs";
import { Tour } from "./tour.mjs";

const ARMS = { rxt: "RxT, answer and update", reread: "stateless, rereads everything", prefix_cached: "stateless, perfect prefix cache" };
let instances = 0;

/** After the next paint; a page in the background does not paint, so not for ever. */
const painted = () => new Promise((resume) => (requestAnimationFrame(() => setTimeout(resume)), setTimeout(resume, 100)));

export class Live {
  /**
   * `load(onProgress)` promises an engine; `size` is what the button says it costs; `prepared` is a recorded conversation
   * { moments, turns: [{query, answer}] } to show until then; `base` is where a reference from PyTorch lies, if there is one.
   */
  constructor(root, { load, size = "", prepared = null, base = null }) {
    Object.assign(this, { load, prepared, base, id: instances++, talks: [], current: 0, layer: 0, queue: Promise.resolve() });
    root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab would swallow Enter
    root.addEventListener("keydown", (event) => event.stopPropagation());
    this.status = h("p", { class: "rxt-status", role: "status" });
    this.progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Loading the weights" });
    this.loader = button(`Load the model${size ? ` (${size})` : ""}`, () => this.ready(), { class: "rxt-main" });
    this.head = h("div", { class: "rxt-row rxt-head" }, this.loader, this.progress, this.status);
    this.chat = new Chat((prepared?.turns ?? []).map(({ query }) => query).filter((text, i, all) => all.indexOf(text) === i), (text) => this.say(text).catch(() => {}));
    this.tabs = h("div", { class: "rxt-tabs" });
    this.view = h("div", { class: "rxt-view" });
    this.facts = h("div", {});
    this.cost = h("div", {});
    this.tour = new Tour(this);
    this.labPlace = h("div", {});
    root.replaceChildren(this.head, this.tour.element,
      h("div", { class: "rxt-columns" },
        h("div", { role: "group", "aria-label": "Chat" }, h("p", { class: "rxt-head3" }, "Chat"), this.tabs, this.chat.element, this.facts),
        h("div", { role: "group", "aria-label": "Memory" }, h("p", { class: "rxt-head3" }, "Memory"), this.view)),
      this.cost, this.labPlace);
    this.tell("Nothing is loaded yet. What you see was recorded.");
    if (prepared) this.showPrepared();
  }

  tell(text) {
    this.status.textContent = text;
  }

  get talk() {
    return this.talks[this.current];
  }

  get other() {
    return this.talks[1 - this.current];
  }

  get statement() {
    return (fact) => this.talk.world.statement(fact);
  }

  replaceOther(conversation) {
    this.talks[1 - this.current] = conversation;
  }

  swap() {
    swap(this.talk, this.other);
  }

  // ---------------------------------------------------------------------------------------------- loading

  /** The engine, loading it first if nobody has; null, and a sentence, if that fails. A second call waits for the first. */
  ready() {
    this.loading ??= this.loadNow().catch((error) => {
      this.loading = null;
      this.progress.hidden = true;
      this.loader.textContent = "Try again";
      this.tell(`Not loaded: ${error.message}.`);
      return null;
    });
    return this.loading;
  }

  async loadNow() {
    this.tell("Loading …");
    this.progress.hidden = false;
    const engine = await this.load((bytes, all) => {
      this.progress.value = bytes / all;
      this.tell(`Loading: ${short(bytes)}B of ${short(all)}B`);
    });
    this.progress.hidden = true;
    this.loader.hidden = true;
    this.use(engine);
    return engine;
  }

  /** Talk with this engine from now on, in two new chats. */
  use(engine) {
    this.engine = engine;
    this.talks = [new Conversation(engine), new Conversation(engine)];
    this.lab = new Lab(this);
    this.labPlace.replaceChildren(this.lab.element, this.more());
    this.tell(`Ready: ${short(engine.parameters)} parameters, ${engine.name}.`);
    this.open(0);
  }

  /** Less usual things: compare with PyTorch, time the other arms, another model. */
  more() {
    const files = h("input", { type: "file", multiple: true, "aria-label": "Files of an exported model",
      onchange: () => this.act("Another model", async () => this.use(await this.engine.constructor.open(files.files))) });
    this.timed = h("input", { type: "checkbox" });
    this.asked = h("input", { type: "checkbox", checked: true });
    return h("div", { class: "rxt-more" },
      h("label", {}, this.asked, "ask for every told fact after each turn, on the side"),
      this.engine.stateless ? h("label", {}, this.timed, "time the two stateless decoders as well") : null,
      this.base ? button("Compare with PyTorch", () => this.act("Compare", () => this.compare())) : null,
      this.base ? folded("A model of your own", h("p", {}, "rxt-lite export-web RUN/rxt --out DIR writes three files that are needed here: config.json, tokenizer.json and model….safetensors. Pick them together; they stay on your machine."), files) : null);
  }

  // ---------------------------------------------------------------------------------------------- talking

  /** Do one thing after the other, and say what went wrong. */
  act(name, action) {
    this.queue = this.queue.catch(() => {}).then(async () => {
      try {
        const said = await action();
        if (typeof said === "string") this.tell(said);
      } catch (error) {
        this.tell(`${name}: ${error.message}.`);
        throw error;
      } finally {
        this.refresh();
      }
    });
    this.queue.catch(() => {});
    return this.queue;
  }

  /** Say `text` in a chat; resolves when it has been remembered. */
  async say(text, chat = this.current) {
    if (!(await this.ready())) return;
    await this.act("Not said", async () => {
      if (chat !== this.current) this.open(chat);
      await this.turn(text);
    });
  }

  async turn(text) {
    const { talk, chat } = this;
    this.engine.query(text); // refused before anything is written
    if (talk.moments.length === 1) chat.log.replaceChildren();
    chat.line("you", text.trim());
    chat.log.setAttribute("aria-busy", "true"); // a screen reader hears the answer once, whole
    const words = chat.line("model", "…");
    this.tell("answering …");
    const turn = await talk.say(text, {
      token: (said) => (words.textContent = said || "…"),
      answer: async (turn) => {
        words.textContent = turn.answer || "(nothing)";
        chat.log.setAttribute("aria-busy", "false");
        this.tell("remembering …");
        this.view.classList.add("rxt-remembering");
        await painted();
      },
    }).finally(() => {
      chat.log.setAttribute("aria-busy", "false");
      this.view.classList.remove("rxt-remembering");
    });
    this.logged = turn;
    if (this.timed?.checked) turn.ms = { ...turn.ms, ...(await timeStateless(this.engine, talk.turns)) };
    if (this.asked.checked && talk.world) turn.facts = await talk.check();
    const tokens = turn.ids.length - turn.from;
    this.tell(`Remembered. Answer: ${tokens} tokens in ${turn.ms.answer.toFixed(0)} ms; update: ${turn.ms.update.toFixed(0)} ms.`);
  }

  /** Show chat number `index`. */
  open(index) {
    this.current = index;
    this.refresh();
  }

  // ---------------------------------------------------------------------------------------------- drawing

  refresh() {
    if (!this.engine) return;
    const { moments, turns } = this.talk;
    this.tabs.replaceChildren(choice("Which chat", `rxt-chat-${this.id}`, [[0, "chat A"], [1, "chat B"]], this.current, (index) => this.open(index)));
    if (this.logged !== this.talk.now) this.chat.show(moments); // after a plain turn the log has its lines already
    this.logged = this.talk.now;
    for (const moment of turns) moment.labels ??= this.engine.labels(moment.ids);
    this.showMoments(this.engine.about.config, moments);
    this.facts.replaceChildren(this.talk.world ? survivalPanel(turns, this.statement) : "");
    this.cost.replaceChildren(...this.costPanel(turns));
    this.lab.refresh();
  }

  showPrepared() {
    const { config, moments, turns } = this.prepared;
    this.chat.show(turns.map(({ query, answer }) => ({ kind: "turn", text: query, answer })));
    this.showMoments(config, moments);
  }

  /** The panels of one moment, with a slider over all of them; it stands at the last. */
  showMoments(config, moments) {
    const panels = h("div", {}), range = h("input", { type: "range", min: Math.min(1, moments.length - 1), max: moments.length - 1, value: moments.length - 1, "aria-label": "Moment" });
    const title = h("p", { class: "rxt-title" });
    const draw = () => {
      const at = Number(range.value), moment = moments[at], before = (moments[at - 1] ?? moment).memory;
      title.textContent = at ? `Moment ${at} of ${moments.length - 1}: ${moment.label}` : "Before anything was said";
      range.setAttribute("aria-valuetext", title.textContent);
      panels.replaceChildren(...momentPanels(config, Math.min(this.layer, config.n_layers - 1), before, moment));
    };
    range.addEventListener("input", draw);
    const layers = Array.from({ length: config.n_layers }, (_, l) => [l, `layer ${l + 1}`]);
    const pick = choice("Which layer", `rxt-layer-${this.id}`, layers, this.layer, (l) => ((this.layer = l), draw()));
    this.view.replaceChildren(title, h("div", { class: "rxt-row" }, range, pick), panels);
    draw();
  }

  costPanel(turns) {
    if (!turns.length) return [];
    const of = ({ macs }) => ({ rxt: macs.rxt_answer + macs.rxt_update, reread: macs.reread, prefix_cached: macs.prefix_cached });
    const last = turns.at(-1), counted = of(last), ms = { rxt: last.ms.answer + last.ms.update, ...last.ms };
    const time = (arm) => (ms[arm] === undefined ? "not timed" : `${ms[arm].toFixed(1)} ms`);
    const series = Object.entries(ARMS).map(([arm, name]) => ({ name, points: turns.map((turn) => [turn.turn, of(turn)[arm]]) }));
    const rows = Object.entries(ARMS).map(([arm, name]) => [name, short(counted[arm]), time(arm)]);
    return [h("div", { role: "group", "aria-label": "Cost" }, h("p", { class: "rxt-head3" }, "What a turn costs"),
      lines(series, { x: "turn", y: "multiply-adds", label: `Multiply-adds of each turn. ${rows.map(([name, macs]) => `${name}: ${macs}`).join("; ")} in turn ${last.turn}.` }),
      plainTable(`Turn ${last.turn}`, ["arm", "multiply-adds", "time"], rows))];
  }

  // ---------------------------------------------------------------------------------------------- proof

  /** Let this engine go through the reference conversation and compare every answer and memory with PyTorch's. */
  async compare() {
    const [turns, buffer] = await Promise.all([fetch(`${this.base}reference.json`).then((reply) => reply.json()),
      fetch(`${this.base}reference.safetensors`).then((reply) => reply.arrayBuffer())]);
    const { data } = readSafetensors(buffer).tensors.memory, talk = new Conversation(this.engine), size = talk.memory.length;
    let [equal, furthest, largest] = [0, 0, 0];
    for (const [n, { query, event }] of turns.entries()) {
      const turn = await talk.say(query);
      equal += Number(turn.ids.join() === event.join());
      turn.memory.forEach((value, i) => {
        furthest = Math.max(furthest, Math.abs(value - data[(n + 1) * size + i]));
        largest = Math.max(largest, Math.abs(value));
      });
    }
    return `${equal} of ${turns.length} answers are PyTorch's, token by token; memories differ by at most ${furthest.toExponential(1)} in numbers of up to ${largest.toFixed(1)} (${this.engine.name}).`;
  }
}
