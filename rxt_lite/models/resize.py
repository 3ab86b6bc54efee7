"""More or fewer slots in a trained model, and in a memory that is in use.

    slot i of the new memory is slot i mod S of the old

A slot copied onto a whole multiple of S changes no answer: every token then reads each value as often as before.
But equal slots with equal names stay equal for ever, so what is grown in order to hold more wants some `noise`
on the copies, and a little training.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rxt_lite.layers.gate import ResidualGate
from rxt_lite.models.rxt import RxT


def copied_slots(old: int, new: int, device: torch.device | None = None) -> Tensor:
    """Which of `old` slots each of `new` slots is a copy of, (new)."""
    if new < 1:
        raise ValueError(f"n_slots={new} must be at least 1")
    return torch.arange(new, device=device) % old


def resize_memory(stm: Tensor, n_slots: int) -> Tensor:
    """A memory (L, B, S, D) with `n_slots` slots instead of S."""
    return stm[:, :, copied_slots(stm.shape[2], n_slots, stm.device)]


@torch.no_grad()
def resize_slots(model: RxT, n_slots: int, *, noise: float = 0.0, generator: torch.Generator | None = None) -> RxT:
    """A new RxT with `n_slots` slots and the weights of `model`, which stays as it was.

    noise   standard deviation of what is added to the names and the initial values of the copies, in units of theirs
    """
    old, S = model.config, model.config.n_slots
    config = replace(old, n_slots=n_slots)
    index = copied_slots(S, n_slots)
    weights = {name: w.detach().cpu().clone() for name, w in model.state_dict().items()}
    copies = slice(S, n_slots)
    for name in {"initial_slots", "memory.names"} & set(weights):
        axis = weights[name].ndim - 2
        grown = weights[name].index_select(axis, index)
        grown[..., copies, :] += noise * weights[name].std() * torch.randn(grown[..., copies, :].shape, generator=generator)
        weights[name] = grown
    for path, module in model.named_modules():
        if isinstance(module, ResidualGate) and old.gate in ("static", "elementwise", "linear"):
            resize_gate(weights, path, index, S, old.gate_per_slot)
    resized = RxT(config)
    resized.load_state_dict(weights)
    return resized.to(model.device).train(model.training)


def resize_gate(weights: dict, path: str, index: Tensor, old: int, per_slot: bool) -> None:
    """The gate at `path`, in place: a copy gets the gate of its slot, and the sum over slots keeps its size."""
    for name in ("weight", "to_gate.weight", "to_gate.bias"):
        full = f"{path}.{name}"
        if full not in weights:
            continue
        w = weights[full]  # (L, 1, S), (L, S, S), (L, 1, S); 1 in place of the first S where one gate serves all
        if name == "to_gate.weight":
            w = w[:, :, index] * (old / len(index))
            weights[full] = w[:, index] if per_slot else w
        elif per_slot:
            weights[full] = w[:, :, index]
