"""Attention: every query looks at all keys and takes home the weighted mean of their values.

    A(q, k, v) = softmax(q k^T / sqrt(K)) v          heads side by side, then one output map

One class serves four places, which differ in who asks, who is asked, and who is rotated:

    self-attention of tokens      q = k = v = tokens            RoPE on queries and keys
    tokens reading the memory     q = tokens, k = v = slots     RoPE on queries only: slots have no order
    slots reading an event        q = slots,  k = v = event     RoPE on keys only
    slots reading slots           q = slots,  k = v = slots     no RoPE

Head counts give the variants: equal counts MHA, fewer key-value heads GQA, one MQA, fewer query
heads too SQA (arXiv 2510.01817). With fewer query than key-value heads the queries are tiled.
Conventions: no bias on queries, keys, values; bias on the output map. Two options of the RxT models, both
off by default: RMSNorm of every query and key head before it is rotated (`query_key_norm`), and
sigmoid(W_g x) on the joined heads before the output map (`attention_gate`), W_g starting near 1.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.linear import LayerwiseLinear, Linear
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import rotate


class Attention(nn.Module):
    """Multi-head attention with separate counts of query and key-value heads.

    Shapes (a leading L axis where `layerwise`: one set of weights per layer):
        x       (B, T, D)    who asks
        source  (B, M, D)    who is asked; x itself where not given
        mask    (B, T, M)    True where the query may look; broadcast over heads
        returns (B, T, D)
    """

    def __init__(self, config: ModelConfig, heads: tuple[int, int], layerwise: bool = False):
        super().__init__()
        linear = partial(LayerwiseLinear, config.n_layers) if layerwise else Linear
        D, self.d_head = config.d_model, config.d_head
        self.query_heads, self.kv_heads = heads
        self.to_q = linear(D, self.query_heads * self.d_head, bias=False)
        self.to_k = linear(D, self.kv_heads * self.d_head, bias=False)
        self.to_v = linear(D, self.kv_heads * self.d_head, bias=False)
        self.to_out = linear(max(heads) * self.d_head, D, bias=True)
        norm = partial(RMSNorm, self.d_head, config.n_layers if layerwise else None, between=3)
        self.norm_q, self.norm_k = (norm(), norm()) if config.query_key_norm else (None, None)
        self.to_gate = linear(D, max(heads) * self.d_head, bias=False) if config.attention_gate else None
        if self.to_gate is not None:
            nn.init.normal_(self.to_gate.weight, mean=1.0, std=0.01)

    def split(self, x: Tensor, norm: RMSNorm | None = None, rotation: Tensor | None = None) -> Tensor:
        x = x.unflatten(-1, (-1, self.d_head))  # (B, T, H, K)
        return rotate(x if norm is None else norm(x), rotation).transpose(-3, -2)  # (B, H, T, K)

    def keys_values(self, source: Tensor, rotation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of `source` (B, M, D): two tensors (B, kv heads, M, K). Computed once, used often."""
        return self.split(self.to_k(source), self.norm_k, rotation), self.split(self.to_v(source))

    def attend(self, x: Tensor, k: Tensor, v: Tensor, *, rotation=None, mask=None, causal=False) -> Tensor:
        """Ask with `x` (B, T, D) the keys and values made by `keys_values`; returns (B, T, D)."""
        q = self.split(self.to_q(x), self.norm_q, rotation)  # (B, H, T, K)
        if self.query_heads < self.kv_heads:
            q = q.repeat(*[1] * (q.ndim - 3), self.kv_heads // self.query_heads, 1, 1)
        lead = q.shape[:-3]  # (B) or (L, B)
        if mask is not None:
            mask = mask.expand(*lead, *mask.shape[-2:]).flatten(0, -3).unsqueeze(1)  # (B, 1, T, M)
        if len(lead) > 1:  # the kernel wants one batch axis
            q, k, v = (t.flatten(0, -4) for t in (q, k, v))
        how = {"attn_mask": mask, "is_causal": causal, "enable_gqa": q.shape[1] != k.shape[1]}
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):  # the kernel's backward pass in bfloat16 takes five times as long there
                out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), **how)
        else:
            out = F.scaled_dot_product_attention(q, k, v, **how)
        out = out.transpose(1, 2).flatten(2)  # (B, T, H K)
        if len(lead) > 1:
            out = out.unflatten(0, lead)
        return self.to_out(out if self.to_gate is None else out * self.to_gate(x).sigmoid())  # (B, T, D)

    def forward(self, x: Tensor, source: Tensor | None = None, *, q_rotation=None, k_rotation=None,
                mask=None, causal=False) -> Tensor:
        k, v = self.keys_values(x if source is None else source, k_rotation)
        return self.attend(x, k, v, rotation=q_rotation, mask=mask, causal=causal)
