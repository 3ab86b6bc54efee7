// The log of a chat, the line to type in, and messages to pick.

import { button, h } from "./drawing.mjs";

const LINES_KEPT = 60; // lines of a log that stay on the page

export class Chat {
  /** `onsay(text)` is called for a message; nothing here knows a model. */
  constructor(suggestions, onsay) {
    this.log = h("div", { class: "rxt-log", role: "log", "aria-label": "Conversation", tabindex: 0 });
    this.input = h("input", { type: "text", "aria-label": "Message", placeholder: "Tell it something, or ask", autocomplete: "off", maxlength: 400 });
    const submit = (event) => {
      event.preventDefault();
      const text = this.input.value;
      this.input.value = "";
      onsay(text);
    };
    this.form = h("form", { class: "rxt-form", onsubmit: submit }, this.input, h("button", { type: "submit" }, "Say"));
    this.picks = h("div", { class: "rxt-picks", role: "group", "aria-label": "Messages to pick" },
      suggestions.map((text) => button(text, () => onsay(text))));
    this.element = h("div", { class: "rxt-chat" }, this.log, this.form, this.picks);
  }

  line(who, text, kind = who) {
    const words = h("span", {}, text);
    this.log.append(h("p", { class: `rxt-said rxt-${kind}` }, h("b", {}, `${who}: `), words));
    while (this.log.children.length > LINES_KEPT) this.log.firstChild.remove();
    this.log.scrollTop = this.log.scrollHeight;
    return words;
  }

  note(text) {
    this.log.append(h("p", { class: "rxt-said rxt-event" }, text));
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** All moments of a conversation, without reading them all out. */
  show(moments) {
    this.log.setAttribute("aria-live", "off");
    setTimeout(() => this.log.removeAttribute("aria-live"), 500);
    this.log.replaceChildren();
    for (const { kind, label, text, answer } of moments) {
      if (kind === "turn") this.line("you", text), this.line("model", answer);
      else if (kind === "edit") this.note(label);
    }
    if (!this.log.children.length) this.note("The memory is empty. Tell it something, ask later.");
  }
}
