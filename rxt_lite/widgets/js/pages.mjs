// Widgets on a page without a kernel. The engine of the live model is a module of its own, fetched with the weights.

import { h } from "./drawing.mjs";
import { Live } from "./live.mjs";
import { unpackedTrace } from "./packed.mjs";
import { WIDGETS } from "./widgets.mjs";

/** Traits without a kernel behind them. */
class Store {
  constructor(state) {
    [this.state, this.listeners] = [state, []];
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    this.state[name] = value;
    for (const [event, listener] of this.listeners) if (event === `change:${name}`) listener();
  }

  on(event, listener) {
    this.listeners.push([event, listener]);
  }

  save_changes() {}
}

/** The live model, with a recorded conversation until it is loaded. Engine and weights lie beside this module. */
function drawLive(model, el) {
  const base = new URL("./", import.meta.url).href, place = h("div", {}), trace = model.get("trace");
  const load = async (onProgress) => (await import(`${base}rxt-engine.mjs`)).LocalEngine.fetch(base, onProgress);
  el.append(place);
  new Live(place, { load, base, size: model.get("size"), prepared: trace && { ...unpackedTrace(trace), turns: model.get("turns") } });
}

/** Bring all widgets of a page to life: elements data-rxt="kind" with their traits as JSON in a script inside. */
export function mountAll(page = document) {
  for (const el of page.querySelectorAll("[data-rxt]")) {
    const model = new Store(JSON.parse(el.querySelector("script").textContent)), draw = { ...WIDGETS, LiveRxT: drawLive }[el.dataset.rxt];
    el.removeAttribute("data-rxt"); // once is enough
    el.replaceChildren();
    draw(model, el);
  }
}

export { Conversation } from "./conversation.mjs";
