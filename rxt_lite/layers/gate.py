"""The residual gate: how much of a slot survives an update.

    sigmoid:  slots' = g * new + (1 - g) * old
    tanh:     slots' = (1 + g) * new + (1 - g) * old
    none:     slots' = new + old
    replace:  slots' = new

g is one number per slot. The paper's kinds compute it from s, the mean over D of (new + old), or a learned
linear map of (new + old) to one number (`gate_statistic="learned"`):

    static      g = act(w)             w (S)
    elementwise g = act(w * s)         w (S)
    linear      g = act(W s + b)       W (S, S): every slot's gate sees every slot's statistic
and ours from the two vectors themselves, with a size that does not depend on S:
    slot        g = act(a . old + c . new + b)        a, c (D)

With `gate_per_slot=False` the paper's kinds have one g for all slots: w (1), W (1, S). `static` and
`elementwise` start at w = 3. Source: arXiv 2510.03561. All layers at once: each parameter has a leading L axis.
"""

import torch
from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.linear import LayerwiseLinear


class ResidualGate(nn.Module):
    """Mix old slots with their update.

    Shapes:
        old, new (L, B, S, D)
        returns  (L, B, S, D)
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.kind, self.activation = config.gate, config.gate_activation
        L, S, D = config.n_layers, config.n_slots, config.d_model
        gates = S if config.gate_per_slot else 1
        if self.kind in ("static", "elementwise"):
            self.weight = nn.Parameter(torch.full((L, 1, gates), 3.0))
        elif self.kind == "linear":
            self.to_gate = LayerwiseLinear(L, S, gates)
        elif self.kind == "slot":
            self.to_gate = LayerwiseLinear(L, 2 * D, 1)
        self.to_statistic = LayerwiseLinear(L, D, 1) if config.gate_statistic == "learned" else None

    def amount(self, old: Tensor, new: Tensor) -> Tensor:
        """g, (L, B, S, 1): between 0 and 1 for sigmoid, -1 and 1 for tanh. 0 keeps the slot as it was (sigmoid)."""
        act = torch.sigmoid if self.activation == "sigmoid" else torch.tanh
        if self.kind == "slot":
            return act(self.to_gate(torch.cat([old, new], dim=-1)))
        if self.kind == "static":
            return act(self.weight.expand(old.shape[:3])).unsqueeze(-1)
        both = new + old
        statistic = both.mean(-1) if self.to_statistic is None else self.to_statistic(both).squeeze(-1)  # (L, B, S)
        if self.kind == "elementwise":
            return act(self.weight * statistic).unsqueeze(-1)
        return act(self.to_gate(statistic.unsqueeze(1)).squeeze(1)).expand_as(statistic).unsqueeze(-1)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        if self.kind == "none":
            return old + new
        if self.kind == "replace":
            return new
        g = self.amount(old, new)
        return (g if self.activation == "sigmoid" else 1 + g) * new + (1 - g) * old
