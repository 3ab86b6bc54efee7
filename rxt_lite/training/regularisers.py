"""What may be asked of a model besides its loss: slots that differ, gates that write little, experts that share the work.

    slot_diversity   mean over pairs of slots of cos(slot i, slot j)^2       0: all different, 1: all slots have become one
    gate_size        mean of g^2 over all slots and updates                  0: the memory keeps what it has
    balance          load balance of the experts, at least about 1           see layers/experts.py

A stage names its weights. What they need is seen by hooks while the loss is computed, so no loss and no model knows
of them; with all weights 0 nothing is hooked. Padding is never counted, nor an update by an event of padding.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from rxt_lite.config import PAD
from rxt_lite.data.batches import Batch
from rxt_lite.layers.experts import Router, Routing, balance_loss
from rxt_lite.layers.gate import ResidualGate
from rxt_lite.layers.memory import MemoryAttention
from rxt_lite.models.base import EventModel
from rxt_lite.training.processes import mean, total


@dataclass
class Seen:
    """What happened inside a model while a loss was computed."""

    slots: list[Tensor] = field(default_factory=list)  # (L, B, S, D) after update 0, 1, ... of the batch's events
    gates: list[list[Tensor]] = field(default_factory=list)  # (L, B, S, 1) of every gate in update 0, 1, ...
    routings: list[tuple[Routing, Tensor]] = field(default_factory=list)  # with True where a token is no padding


@contextmanager
def watch_memory(model: EventModel) -> Iterator[Seen]:
    """Inside the block, every memory update, gate and router of `model` is written down."""
    seen, gates, tokens = Seen(), [], []

    def updated(module, args, slots):
        seen.slots.append(slots)
        seen.gates.append(gates.copy())
        gates.clear()

    def gated(gate, args, out):
        if gate.kind not in ("none", "replace"):
            gates.append(gate.amount(*args))

    def embedded(module, args, out):  # what a decoder embeds last is what its routers see next
        tokens[:] = [args[0]]

    def routed(module, args, routing):
        seen.routings.append((routing, (tokens[0] != PAD).flatten()))

    watchers = ((MemoryAttention, updated), (ResidualGate, gated), (torch.nn.Embedding, embedded), (Router, routed))
    with ExitStack() as hooks:
        for module in model.modules():
            for kind, watcher in watchers:
                if isinstance(module, kind):
                    hooks.enter_context(module.register_forward_hook(watcher))
        yield seen


def of_events(values: list[Tensor], batch: Batch) -> list[Tensor]:
    """Of what update n left, (L, B, ...), the rows whose event n is not empty."""
    is_event = (batch.tokens != PAD).any(-1)  # (B, N)
    return [value[:, is_event[:, n]] for n, value in enumerate(values)]


def slot_diversity(seen: Seen, batch: Batch) -> Tensor:
    """Mean squared cosine between two different slots of a layer: a scalar from 0 (all different) to 1 (all the same)."""
    if not seen.slots:
        raise ValueError("slot_diversity needs updates of a memory, but this stage makes none; choose slot_diversity=0")
    unit = F.normalize(torch.cat([slots.flatten(0, 1) for slots in of_events(seen.slots, batch)]).float(), dim=-1)  # (M, S, D)
    S = unit.shape[1]
    cosines = (unit @ unit.transpose(-1, -2)).masked_fill(torch.eye(S, dtype=torch.bool, device=unit.device), 0.0)
    return mean(cosines.pow(2).sum((-1, -2)) / max(1, S * (S - 1)))


def gate_size(seen: Seen, batch: Batch) -> Tensor:
    """Mean squared gate, a scalar: how much of the memory an event rewrites."""
    gates = [gate for of_update in zip(*seen.gates) for gate in of_events(list(of_update), batch)]
    if not gates:
        raise ValueError("gate_size needs a gate, but this model has none; choose gate_size=0 or another gate")
    return mean(torch.cat([gate.flatten() for gate in gates]).float().pow(2))


def balance(seen: Seen, batch: Batch) -> Tensor:
    """Mean balance of all routers, a scalar."""
    if not seen.routings:
        raise ValueError("balance needs experts, but this model has none; choose balance=0 or n_experts above 0")
    return torch.stack([balance_loss([routing], is_token, total) for routing, is_token in seen.routings]).mean()


REGULARISERS = {"slot_diversity": slot_diversity, "gate_size": gate_size, "balance": balance}
