"""The widgets of the pages in a notebook, with a kernel behind them: JupyterLab, Colab, VS Code.

    LiveRxT(model, tokenizer)               talk to a model, and watch its memory
    MemoryMap(trace, tokenizer)             a recorded conversation: slots, gates, reading, writing
    SlotSurvival(rows)                      how long contents and facts live       rows of `survival_rows`
    GateExplorer(rows)                      how far each gate opened at each event       rows of `trace_rows`
    CostMeter(rows)                         what each turn costs                   rows of `cost_rows`

They are ipywidgets: their traits can be observed, linked and set (`widget.event = 3`). Where there is no kernel, as in
the built book, the same modules draw the same picture from the traits; where no script runs, a table is shown.
"""

import json
from collections.abc import Sequence

import anywidget
import torch
import traitlets
from tokenizers import Tokenizer
from torch import Tensor

from rxt_lite.data.tokenizer import decode
from rxt_lite.experiments.trace import Trace, record
from rxt_lite.models import RxT
from rxt_lite.models.generate import stream
from rxt_lite.widgets.bundle import bundle, style
from rxt_lite.widgets.export import ANSWER, check_profile, description
from rxt_lite.widgets.packing import packed_trace
from rxt_lite.widgets.page import live_html, mount, table


def checked(rows: Sequence[dict], *names: str) -> list[dict]:
    """The rows, if each has these columns."""
    rows = list(rows)
    missing = [name for name in names if not rows or name not in rows[0]]
    if missing:
        came = ", ".join(rows[0]) if rows else "no rows"
        raise ValueError(f"the rows have no {missing[0]!r} (they have: {came}); this widget needs {', '.join(names)}")
    return rows


def as_bytes(values: Tensor) -> bytes:
    return values.detach().float().contiguous().cpu().numpy().astype("<f4").tobytes()


def from_bytes(buffer: bytes | memoryview, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(bytearray(buffer), dtype=torch.float32).view(shape)


@torch.no_grad()
def held(model: RxT, tokens: Tensor, stm: Tensor, gate: float) -> Tensor:
    """The memory (L, 1, S, D) after the event (1, T), with one number in the place of every gate."""
    update = model.memory.update(stm, model.encode(tokens), model.rope(torch.arange(tokens.shape[1])))
    return gate * update + (1 - gate) * stm


class Widget(anywidget.AnyWidget):
    """What they share: the module, its style, and HTML for pages without a kernel."""

    _esm = bundle("notebook")
    _css = style()
    kind = traitlets.Unicode().tag(sync=True)
    on_a_page: tuple[str, ...] = ()  # the traits that a page needs

    def as_table(self) -> str:
        """HTML of the table that says what the picture shows."""
        raise TypeError(f"{type(self).__name__} must define as_table")

    def as_html(self) -> str:
        return mount(self.kind, {name: getattr(self, name) for name in self.on_a_page}, self.as_table())

    def _repr_mimebundle_(self, **kwargs):
        shown = super()._repr_mimebundle_(**kwargs)
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return {**(data or {}), "text/html": self.as_html()}, metadata


class MemoryMap(Widget):
    """A recorded conversation, event by event. Traits: event (from 1), layer."""

    kind = traitlets.Unicode("MemoryMap").tag(sync=True)
    trace = traitlets.Dict().tag(sync=True)
    event = traitlets.Int(1).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    on_a_page = ("trace", "event", "layer")

    def __init__(self, trace: Trace, tokenizer: Tokenizer, **traits):
        super().__init__(trace=packed_trace(trace, tokenizer), **traits)
        change = trace.change.mean(-1)  # (N, L)
        self.changes = [{"event": n + 1, "text": decode(tokenizer, tokens.tolist()),
                         **{f"change of layer {l + 1}": change[n, l].item() for l in range(change.shape[1])}}
                        for n, tokens in enumerate(trace.tokens)]

    def as_table(self) -> str:
        return table("How far each event moved the slots of each layer, root mean square", self.changes)


class SlotSurvival(Widget):
    """Kaplan-Meier curves, from rows {"of", "arm", "age", "alive", ...}. Trait: age, where the curves are read off."""

    kind = traitlets.Unicode("SlotSurvival").tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    age = traitlets.Int(0).tag(sync=True)
    on_a_page = ("rows", "age")

    def __init__(self, rows: Sequence[dict], **traits):
        super().__init__(rows=checked(rows, "age", "alive"), **traits)

    def as_table(self) -> str:
        return table("Share alive by age", self.rows)


class GateExplorer(Widget):
    """Gates by event, layer and slot, from rows {"event", "layer", "slot", "gate"}. Traits: event, threshold."""

    kind = traitlets.Unicode("GateExplorer").tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    event = traitlets.Int(0).tag(sync=True)
    threshold = traitlets.Float(0.5).tag(sync=True)
    words = traitlets.Dict().tag(sync=True)  # what was said in each event, where it is known
    on_a_page = ("rows", "event", "threshold", "words")

    def __init__(self, rows: Sequence[dict], **traits):
        kept = ("event", "layer", "slot", "gate")
        rows = checked(rows, *kept)
        if any(row["gate"] is None for row in rows):
            raise ValueError("these rows come from a model whose gate has no number (gate='none' or 'replace'); train one that has")
        words = {str(row["event"]): " ".join(row["tokens"]) for row in rows if "tokens" in row}
        rows = [{name: row[name] for name in kept} for row in rows]
        super().__init__(rows=rows, words=words, **{"event": rows[0]["event"], **traits})

    def as_table(self) -> str:
        means = {}
        for row in self.rows:
            means.setdefault((row["event"], row["layer"]), []).append(row["gate"])
        rows = [{"event": e, "layer": l + 1, "mean gate": sum(g) / len(g), "largest": max(g)} for (e, l), g in means.items()]
        return table("Gates by event and layer", rows)


class CostMeter(Widget):
    """Multiply-adds by turn, from rows of `cost_rows`. Traits: turn, logarithmic (the scale)."""

    kind = traitlets.Unicode("CostMeter").tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    turn = traitlets.Int(1).tag(sync=True)
    logarithmic = traitlets.Bool(True).tag(sync=True)
    on_a_page = ("rows", "turn", "logarithmic")

    def __init__(self, rows: Sequence[dict], **traits):
        super().__init__(rows=checked(rows, "arm", "turn", "tokens", "macs", "state_bytes"), **traits)

    def as_table(self) -> str:
        return table("Cost by turn", [row for row in self.rows if row["turn"] in (1, self.rows[-1]["turn"])])


class LiveRxT(Widget):
    """Talk to `model`, which stays in the kernel. On a page without a kernel the exported model of the book answers.

    The front end holds the conversation: it sends a memory with every question and gets the next one back, so that
    forking, rewinding and swapping work as on the page. Any number of these widgets are independent of each other.
    """

    kind = traitlets.Unicode("LiveRxT").tag(sync=True)
    about = traitlets.Dict().tag(sync=True)
    tokenizer = traitlets.Dict().tag(sync=True)
    start = traitlets.Bytes().tag(sync=True)
    parameters = traitlets.Int().tag(sync=True)

    def __init__(self, model: RxT, tokenizer: Tokenizer, **traits):
        check_profile(model)
        if model.training:
            raise ValueError("the model is in training mode; call model.eval() before it talks")
        self.model = model
        super().__init__(about=description(model), tokenizer=json.loads(tokenizer.to_str()), start=as_bytes(model.init_state(1)),
                         parameters=sum(p.numel() for p in model.parameters()), **traits)
        self.on_msg(self._receive)

    def as_html(self) -> str:
        return live_html()

    def _receive(self, _, content: dict, buffers: list) -> None:
        """A request of the front end; see js/kernel-engine.mjs. What goes wrong is said there."""
        try:
            answer = {"answer": self._answer, "remember": self._remember}[content["command"]]
            memory = from_bytes(buffers[0], self.model.state_shape(1))
            arrays = answer(content, memory)
            self.send({"id": content["id"], "done": True}, [as_bytes(array) for array in arrays])
        except Exception as error:  # noqa: BLE001  a widget without an answer would wait for ever
            self.send({"id": content["id"], "error": f"{error}"})

    def _answer(self, content: dict, memory: Tensor) -> list[Tensor]:
        """Stream the greedy answer; then, for each layer, how the tokens that were fed read the slots (T, S)."""
        query = torch.tensor([content["ids"]])
        said, room = [], min(ANSWER, self.model.config.max_len - query.shape[1])
        for token in stream(self.model, query, memory, room):
            said.append(int(token))
            self.send({"id": content["id"], "token": said[-1]})
        fed = torch.tensor([content["ids"] + said[:-1]])
        return list(record(self.model, [fed], memory).read[0])

    def _remember(self, content: dict, memory: Tensor) -> list[Tensor]:
        """Memory, gates, and for each layer how the slots read the event."""
        trace = record(self.model, [torch.tensor([content["ids"]])], memory)
        after, gate, hold = trace.slots[1], trace.gate[0], content["hold"]
        if hold is not None:
            after, gate = held(self.model, trace.tokens[0][None], memory, hold)[:, 0], torch.full_like(gate, hold)
        return [after, gate, *trace.write[0]]
