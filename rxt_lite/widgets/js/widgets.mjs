// The widgets, each drawn from the traits of a model: `model.get`, `set`, `on("change:…")`, `save_changes`. In a notebook
// (notebook.mjs) the model is that of ipywidgets; on a page without a kernel (pages.mjs) it is filled from the page.

import { choice, folded, grid, h, lines, plainTable, short } from "./drawing.mjs";
import { unpackedTrace } from "./packed.mjs";
import { momentPanels } from "./panels.mjs";

/** A slider that is a trait: moving one moves the other. */
function slider(model, trait, label, min, max, step = 1) {
  const range = h("input", { type: "range", min, max, step, value: model.get(trait), "aria-label": label });
  const said = h("output", {}, model.get(trait));
  range.addEventListener("input", () => (model.set(trait, Number(range.value)), model.save_changes()));
  model.on(`change:${trait}`, () => (range.value = said.textContent = model.get(trait)));
  return h("label", { class: "rxt-row" }, label, range, said);
}

/** Draw now, and anew whenever one of the traits changes. */
function follow(model, traits, place, draw) {
  const now = () => place.replaceChildren(...[draw()].flat());
  for (const trait of traits) model.on(`change:${trait}`, now);
  now();
}

const layerChoice = (model, L, name) =>
  choice("Which layer", name, Array.from({ length: L }, (_, l) => [l, `layer ${l + 1}`]), model.get("layer"), (l) => (model.set("layer", l), model.save_changes()));

let count = 0;

/** A recorded conversation, event by event. */
function drawMemoryMap(model, el) {
  const { config, moments } = unpackedTrace(model.get("trace")), place = h("div", {});
  el.append(h("div", { class: "rxt-row" }, slider(model, "event", "event", 1, moments.length - 1), layerChoice(model, config.n_layers, `rxt-map-${count++}`)), place);
  follow(model, ["event", "layer"], place, () => {
    const at = model.get("event"), moment = moments[at];
    return [h("p", { class: "rxt-title" }, `Event ${at}: ${moment.label}`), ...momentPanels(config, model.get("layer"), moments[at - 1].memory, moment)];
  });
}

/** Survival curves from rows of `survival_rows`. */
function drawSlotSurvival(model, el) {
  const place = h("div", {}), all = model.get("rows"), ages = all.map(({ age }) => age);
  const names = [...new Set(all.map(nameOfCurve))], of = (name) => all.filter((row) => nameOfCurve(row) === name);
  el.append(slider(model, "age", "age", 0, Math.max(...ages)), place);
  follow(model, ["age"], place, () => {
    const age = model.get("age"), alive = (name) => of(name).filter((row) => row.age <= age).at(-1)?.alive ?? 1;
    const series = names.map((name) => ({ name, points: [[0, 1], ...of(name).map((row) => [row.age, row.alive])] }));
    const rows = names.map((name) => [name, `${(100 * alive(name)).toFixed(0)} %`]);
    const said = `Share alive at age ${age}. ${rows.map(([name, share]) => `${name}: ${share}`).join("; ")}.`;
    return [lines(series, { x: "age in events", y: "share alive", stepped: true, top: 1, mark: age, label: said }),
      folded("The same as a table", plainTable(`Alive at age ${age}`, ["curve", "alive"], rows))];
  });
}

const nameOfCurve = ({ of, arm }) => [of, arm?.replace("_", " ")].filter(Boolean).join(", ") || "all";

/** Gates from rows { event, layer, slot, gate }: those of one event, and how many opened wide at each. */
function drawGateExplorer(model, el) {
  const rows = model.get("rows"), place = h("div", {}), events = [...new Set(rows.map(({ event }) => event))], layers = [...new Set(rows.map(({ layer }) => layer))];
  el.append(slider(model, "event", "event", events[0], events.at(-1)), slider(model, "threshold", "open means a gate above", 0, 1, 0.05), place);
  follow(model, ["event", "threshold"], place, () => {
    const event = model.get("event"), least = model.get("threshold"), of = (l, e) => rows.filter((row) => row.layer === l && row.event === e);
    const open = (l, e) => of(l, e).filter(({ gate }) => gate > least).length;
    const cells = (l) => of(l, event).map(({ gate }) => ({ share: gate, text: gate.toFixed(2), mark: gate > least ? "•" : null }));
    const series = layers.map((l) => ({ name: `layer ${l + 1}`, points: events.map((e) => [e, open(l, e)]) }));
    const label = model.get("words")[event];
    return [h("p", { class: "rxt-title" }, `Event ${event}${label ? `: ${label}` : ""}`),
      grid({ caption: `Gates of event ${event}; a dot marks those above ${least}`, corner: "layer", columns: of(layers[0], event).map(({ slot }) => `${slot + 1}`),
        rows: layers.map((l) => ({ head: l + 1, cells: cells(l) })) }),
      lines(series, { x: "event", y: "open gates", mark: event, label: `How many gates are above ${least} at each event; at event ${event}: ${layers.map((l) => `layer ${l + 1}: ${open(l, event)}`).join(", ")}.` })];
  });
}

/** Cost of each turn from rows of `cost_rows`. */
function drawCostMeter(model, el) {
  const rows = model.get("rows"), place = h("div", {}), arms = [...new Set(rows.map(({ arm }) => arm))];
  const turns = rows.map(({ turn }) => turn), scale = choice("Scale", `rxt-cost-${count++}`, [[true, "logarithmic"], [false, "linear"]], model.get("logarithmic"), (log) => (model.set("logarithmic", log), model.save_changes()));
  el.append(h("div", { class: "rxt-row" }, slider(model, "turn", "turn", Math.min(...turns), Math.max(...turns)), scale), place);
  follow(model, ["turn", "logarithmic"], place, () => {
    const turn = model.get("turn"), at = rows.filter((row) => row.turn === turn);
    const series = arms.map((arm) => ({ name: arm.replace("_", " "), points: rows.filter((row) => row.arm === arm).map((row) => [row.turn, row.macs]) }));
    const said = at.map(({ arm, macs }) => `${arm.replace("_", " ")}: ${short(macs)}`).join("; ");
    return [lines(series, { x: "turn", y: "multiply-adds", log: model.get("logarithmic"), mark: turn, label: `Multiply-adds of turn ${turn}. ${said}.` }),
      plainTable(`Turn ${turn}`, ["arm", "tokens", "multiply-adds", "bytes kept"], at.map((row) => [row.arm.replace("_", " "), short(row.tokens), short(row.macs), short(row.state_bytes)]))];
  });
}

export const WIDGETS = { MemoryMap: drawMemoryMap, SlotSurvival: drawSlotSurvival, GateExplorer: drawGateExplorer, CostMeter: drawCostMeter };
