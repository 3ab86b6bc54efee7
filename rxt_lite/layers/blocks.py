"""Encoder and decoder layers, pre-norm.

    encoder:  a = x + SelfAttention(N1(x))                       every token sees every token
              y = a + FF(N2(a))
    decoder:  a = x + SelfAttention(N1(x), causal)
              b = a + CrossAttention(q = N2(a), k = v = Ns(slots))      only in models with memory
              y = b + FF(N3(b))

FF is dense, or experts in the decoder where the config has any. Source: arXiv 2510.03561. The encoder never
sees the slots.
"""

from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.attention import Attention
from rxt_lite.layers.experts import Experts
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.norm import RMSNorm


class EncoderLayer(nn.Module):
    """Shapes: x (B, T, D), rotation (T, 1, K/2), mask (B, T, T) or None -> (B, T, D)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_attention = RMSNorm(config.d_model)
        self.attention = Attention(config, config.heads("self"))
        self.norm_feedforward = RMSNorm(config.d_model)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm_attention(x), q_rotation=rotation, k_rotation=rotation, mask=mask)
        return x + self.feedforward(self.norm_feedforward(x))


class DecoderLayer(nn.Module):
    """One layer that reads its own past and, in a model with memory, the slots.

    Shapes:
        x         (B, T, D)
        rotation  (T, 1, K/2) or (B, T, 1, K/2)
        slots     a pair (B, kv heads, S, K): keys and values from `read_slots`, or None
        past      a function that adds this call's keys and values to a cache and returns all of them, or None
        mask      (B, T, C) over the cached keys; None means plain causal
        slots_mask  (B, 1, S), True on slots that may be read; None means all of them, as in every model with a memory
        returns   (B, T, D)
    """

    def __init__(self, config: ModelConfig, memory: bool):
        super().__init__()
        self.norm_attention = RMSNorm(config.d_model)
        self.attention = Attention(config, config.heads("self"))
        if memory:
            self.norm_memory = RMSNorm(config.d_model)
            self.norm_slots = RMSNorm(config.d_model)
            self.memory = Attention(config, config.heads("cross"))
        self.norm_feedforward = RMSNorm(config.d_model)
        self.feedforward = Experts(config) if config.n_experts else FeedForward(config)

    def read_slots(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the slots (B, S, D): the same for every token of an event, so made once per event."""
        return self.memory.keys_values(self.norm_slots(slots))

    def forward(self, x: Tensor, rotation: Tensor, slots=None, past=None, mask=None, slots_mask=None) -> Tensor:
        h = self.norm_attention(x)
        k, v = self.attention.keys_values(h, rotation)
        if past is not None:
            k, v = past(k, v)
        causal = mask is None if x.shape[1] > 1 else False  # one token comes after all others
        x = x + self.attention.attend(h, k, v, rotation=rotation, mask=mask, causal=causal)
        if slots is not None:
            x = x + self.memory.attend(self.norm_memory(x), *slots, rotation=rotation, mask=slots_mask)
        return x + self.feedforward(self.norm_feedforward(x))
