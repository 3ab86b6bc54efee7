"""A recorder: what happens to every slot of an RxT, or of a MemNet, while it goes through a conversation.

    for each event   gate, change, cosine to itself before    how much of a slot an event replaces
                     write weights                             which tokens of the event the slot looks at
                     read weights                              which slots a token looks at when answering
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from rxt_lite.data.dialogues import Dialogue
from rxt_lite.data.tokenizer import encode_query
from rxt_lite.layers.attention import Attention
from rxt_lite.layers.memory_bank import Slots
from rxt_lite.models import MemNet, RxT
from rxt_lite.models.base import EventModel, join
from rxt_lite.models.generate import converse
from rxt_lite.models.memnet import Steps


@dataclass(frozen=True)
class Trace:
    """A conversation of N events, seen from its memory; all weights are means over heads.

    tokens  N x (T)            the finished events as ids; T differs from event to event
    slots   (N + 1, L, S, D)   before the first event, and after each
    gate    (N, L, S)          g: how much of the slot gives way to its update; None for gates without a number
    write   N x (L, S, T)      how each slot, when rewritten, spreads its attention over the tokens of the event: sums to 1
    read    N x (L, T, S)      how each token, when answering, spreads its attention over the slots before the event
    """

    tokens: list[Tensor]
    slots: Tensor
    gate: Tensor | None
    write: list[Tensor]
    read: list[Tensor]

    @property
    def norm(self) -> Tensor:
        """(N, L, S): root mean square of each slot after the event."""
        return self.slots[1:].pow(2).mean(-1).sqrt()

    @property
    def change(self) -> Tensor:
        """(N, L, S): root mean square of what the event moved."""
        return (self.slots[1:] - self.slots[:-1]).pow(2).mean(-1).sqrt()

    @property
    def cosine(self) -> Tensor:
        """(N, L, S): cosine between a slot after the event and itself before."""
        return F.cosine_similarity(self.slots[1:], self.slots[:-1], dim=-1)


def attention_weights(attention: Attention, x: Tensor, keys: Tensor, rotation: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(K)) of every head, (..., H, T, M), for `x` (..., T, D) and `keys` from `keys_values`."""
    q = attention.split(attention.to_q(x), attention.norm_q, rotation)  # (..., H, T, K)
    heads = max(q.shape[-3], keys.shape[-3])
    q = torch.cat([q] * (heads // q.shape[-3]), dim=-3)  # fewer query heads are tiled,
    keys = keys.repeat_interleave(heads // keys.shape[-3], dim=-3)  # fewer key heads shared by neighbours: as in `attend`
    return (q @ keys.transpose(-1, -2) / math.sqrt(attention.d_head)).softmax(-1)


@contextmanager
def watching(*modules: nn.Module) -> Iterator[dict[nn.Module, tuple]]:
    """While open: {module: (args, kwargs, output)} of the last call of each module."""
    seen = {}

    def note(module, args, kwargs, output):
        seen[module] = args, kwargs, output

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(note, with_kwargs=True))
        yield seen


@torch.no_grad()
def record(model: RxT | MemNet, events: Sequence[Tensor], stm: Tensor | None = None) -> Trace:
    """Run finished events, each (1, T), through `model` and write down what happens to the slots; from an empty memory if not from `stm`.

    The model does what it always does, `model(tokens, stm)` and `model.remember(tokens, stm)`; hooks look on. For a MemNet
    see `trace_of`; its `stm` is its bank.
    """
    if isinstance(model, MemNet):
        return record_bank(model, events, stm)
    memory, first = model.memory, model.config.stateless_before
    readers = model.decoder[first : first + model.config.n_layers]
    numbered = memory.gate.kind not in ("none", "replace")
    stm = model.init_state(1) if stm is None else stm
    slots, gate, write, read = [stm], [], [], []
    for tokens in events:
        with watching(memory.attention, memory.gate, *(layer.norm_memory for layer in readers)) as seen:
            model(tokens, stm)
            slots.append(model.remember(tokens, stm))
        (asking, event), how, _ = seen[memory.attention]
        keys, _ = memory.attention.keys_values(event, how["k_rotation"])
        write.append(attention_weights(memory.attention, asking, keys)[:, 0].mean(1))  # (L, S, T)
        rotation, of_layers = model.rope(torch.arange(tokens.shape[1], device=model.device)), []
        for layer, bank in zip(readers, stm):
            keys, _ = layer.read_slots(bank)
            of_layers.append(attention_weights(layer.memory, seen[layer.norm_memory][2], keys, rotation)[0].mean(0))  # (T, S)
        read.append(torch.stack(of_layers))
        if numbered:
            gate.append(memory.gate.amount(*seen[memory.gate][0])[:, 0, :, 0])  # (L, S)
        stm = slots[-1]
    return Trace([tokens[0] for tokens in events], torch.stack(slots)[:, :, 0], torch.stack(gate) if numbered else None, write, read)


def record_bank(model: MemNet, events: Sequence[Tensor], state: Tensor | None) -> Trace:
    """One event at a time, since they differ in length."""
    parts = []
    for tokens in events:
        event = tokens.unsqueeze(0)  # (1, 1, T): one conversation, one step
        steps = model.forward_events(event, state)
        parts.append(trace_of(model, event, steps, 0))
        state = steps.state
    tokens, write, read = ([getattr(part, name)[0] for part in parts] for name in ("tokens", "write", "read"))
    slots = torch.cat([parts[0].slots[:1], *(part.slots[1:] for part in parts)])
    return Trace(tokens, slots, torch.cat([part.gate for part in parts]), write, read)


@torch.no_grad()
def trace_of(model: MemNet, events: Tensor, steps: Steps, row: int) -> Trace:
    """The events (B, M, T) of MemNet's `steps`, those of one `row`, as a Trace of one layer: a slot is its key beside its value, the
    gate how much of it the most decided head rewrites. All slots look at the same tokens: those that give the value."""
    whole = [*(torch.cat([steps.before.keys[row], steps.before.values[row]], dim=-1))]
    last = Slots.unpack(steps.state)
    slots = torch.stack([*whole, torch.cat([last.keys[row], last.values[row]], dim=-1)]).unsqueeze(1)  # (M + 1, 1, N, 2D)
    places = torch.ones(len(events[row]), 1)
    if steps.read.shape[2] > 1:  # a step has several tokens: which of them gives the value?
        h = model.norm_bank(model.controller(model.embedding(events[row])))  # (M, T, D)
        places = model.bank.to_place(h).softmax(1)[..., model.config.bank_heads :].mean(-1)  # (M, T)
    write = [place.expand(1, model.config.n_slots, -1) for place in places]
    read = [weights.mean(1).unsqueeze(0) for weights in steps.read[row]]  # M x (1, T, N)
    return Trace([*events[row]], slots, steps.write[row].amax(1).unsqueeze(1), write, read)


@torch.no_grad()
def own_events(model: EventModel, dialogue: Dialogue, tokenizer: Tokenizer, max_new_tokens: int = 12) -> list[Tensor]:
    """The events of a conversation in which the model gives its own answers: N tensors (1, T)."""
    queries = [torch.tensor([encode_query(tokenizer, event.query)], device=model.device) for event in dialogue.events]
    return [join(query, answer) for query, answer in zip(queries, converse(model, queries, max_new_tokens))]
