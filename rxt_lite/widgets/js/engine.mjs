// The engine as a module of its own, for pages that load a model.

export { LocalEngine } from "./local.mjs";
