// Widgets in a notebook, as anywidget wants them. The live model computes in the kernel.

import { h } from "./drawing.mjs";
import { KernelEngine } from "./kernel-engine.mjs";
import { Live } from "./live.mjs";
import { WIDGETS } from "./widgets.mjs";

function drawLive(model, el) {
  const place = h("div", {});
  el.append(place);
  new Live(place, { load: async () => new KernelEngine(model), size: "in the kernel" }).ready();
}

function render({ model, el }) {
  el.classList.add("rxt");
  ({ ...WIDGETS, LiveRxT: drawLive })[model.get("kind")](model, el);
}

export default { render };
