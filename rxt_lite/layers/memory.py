"""Memory attention: the slots ask a finished event what is worth keeping.

With S_l the slots of layer l, E_l the event as encoder layer l saw it, N norms, A attentions, G gates:

    main(X)          = G( X, A( N(X), N(E_l) ) )
    simple           : S'_l = main(S_l)
    self             : X = G1( S_l, A1( N1(S_l), N1(S_l) ) )          S'_l = main(X)
    interlayer       : X = G1( S_l, A1( N1(S_l), M ) )                S'_l = main(X)
    self_interlayer  : X = G1( S_l, A1( N1(S_l), Gz(N1(S_l), M) ) )   S'_l = main(X)
        where M = Nm( mean over layers of S_l ), one norm shared by all layers
    grouped          : as self_interlayer, the mean going over the layer's own group of neighbours

Every layer reads the slots of the previous event, so all layers are computed at once. The slots are
the queries: the cost is O(S T) and the memory cannot grow. RoPE turns the event's keys only.
Source: arXiv 2510.03561.
"""

import torch
from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.attention import Attention
from rxt_lite.layers.gate import ResidualGate
from rxt_lite.layers.norm import RMSNorm


class MemoryAttention(nn.Module):
    """Rewrite the short-term memory with one event.

    Shapes:
        stm      (L, B, S, D)    slots before the event; not modified
        event    (L, B, T, D)    the event after every encoder layer
        rotation (T, 1, K/2)      positions of the event's tokens
        ignore   (B, T)          True where the event is padding
        returns  (L, B, S, D)    slots after the event
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        L, S, D = config.n_layers, config.n_slots, config.d_model
        self.variant = config.memory_attention
        if self.variant != "simple":
            self.norm_first = RMSNorm(D, L)
            self.attention_first = Attention(config, config.heads("memory"), layerwise=True)
            self.gate_first = ResidualGate(config)
        if self.variant not in ("simple", "self"):
            self.norm_mean, self.groups = RMSNorm(D), config.memory_groups
        if self.variant in ("self_interlayer", "grouped"):
            self.gate_mean = ResidualGate(config)
        self.names = nn.Parameter(torch.randn(L, 1, S, D)) if config.slot_embeddings else None
        self.norm_stm = RMSNorm(D, L)
        self.norm_event = RMSNorm(D, L)
        self.attention = Attention(config, config.heads("memory"), layerwise=True)
        self.gate = ResidualGate(config)

    def among_slots(self, stm: Tensor) -> Tensor:
        """The first step of all variants but `simple`: slots look at slots before they look at the event."""
        slots = self.norm_first(stm)
        if self.variant == "self":
            source = slots
        else:
            means = stm.unflatten(0, (self.groups, -1)).mean(1, keepdim=True)  # (groups, 1, B, S, D)
            source = self.norm_mean(means).expand(-1, len(stm) // self.groups, *[-1] * 3).flatten(0, 1)  # M (L, B, S, D)
            if self.variant != "interlayer":
                source = self.gate_mean(slots, source)
        return self.gate_first(stm, self.attention_first(slots, source))

    def update(self, stm: Tensor, event: Tensor, rotation: Tensor, ignore: Tensor | None = None) -> Tensor:
        """What each slot takes from the event, (L, B, S, D), before the gate decides how much of it to keep."""
        asking = self.norm_stm(stm)
        if self.names is not None:
            asking = asking + self.names
        mask = None if ignore is None else ~ignore.unsqueeze(-2).expand(-1, stm.shape[2], -1)  # (B, S, T)
        return self.attention(asking, self.norm_event(event), k_rotation=rotation, mask=mask)

    def forward(self, stm: Tensor, event: Tensor, rotation: Tensor, ignore: Tensor | None = None) -> Tensor:
        if self.variant != "simple":
            stm = self.among_slots(stm)
        return self.gate(stm, self.update(stm, event, rotation, ignore))
