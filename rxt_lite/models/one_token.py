"""One token more of one conversation: the decoder again, in as few calls as it takes.

With many tokens the products take the time. With a single one PyTorch's calls do: a row times a matrix is done sooner than
the next call is made. So the same mathematics is arranged anew, in fewer and larger calls, and what stays the same for the
whole event is worked out when its first single token comes:

    N(x) W = u(x) (sqrt(D) w W),  u(x) = x / sqrt(|x|^2 + D eps)      the scale w of a norm goes into the map that follows
    q | k | v = N(x) (Wq / sqrt(K) | Wk | Wv)                         one product for all three
    R q | R k                                                         R is a matrix (K, K): one product for all heads
    A = softmax(q k^T) v                                              written out, over what the cache holds
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rxt_lite.config import PAD
from rxt_lite.layers.blocks import DecoderLayer
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.models.base import Cache


class ReadsOneMore:
    """For models with an embedding, decoder layers and a head: how they read on, one token at a time."""

    def read_one(self, tokens: Tensor, cache: Cache) -> Tensor | None:
        """Logits (1, 1, V) after `tokens` (1, 1); None where more tokens, the model or its precision want the long way."""
        c, device = self.config, tokens.device.type
        exact = self.head.weight.dtype in (torch.float32, torch.float64)
        if tokens.numel() > 1 or cache.ragged or c.query_key_norm or c.attention_gate or not exact or tokens.item() == PAD:
            return None
        if torch.is_autocast_enabled(device):  # a low precision saves nothing where one row is multiplied
            with torch.autocast(device, enabled=False):
                return self.read_one(tokens, cache)
        if cache.one_token is None:
            cache.one_token = OneToken(self, cache)
        place = cache.admit_one()
        return self.next_logits(cache.one_token, self.embedding(tokens)[0], self.rope.table[place], place + 1).unsqueeze(0)

    @staticmethod
    def next_logits(one: "OneToken", x: Tensor, rotation: Tensor, used: int) -> Tensor:
        """A single call, to be compiled as a whole."""
        return one(x, rotation, used)


class OneToken:
    """A decoder and its head, ready to read on after what is in `cache`.

    Shapes:
        x         (1, D)         an embedded token, the last of `used`
        rotation  (K/2) complex numbers, or (K/2, 2) cosines and sines
        returns   (1, V)
    """

    def __init__(self, model: ReadsOneMore, cache: Cache):
        slots = cache.kept or [None] * len(model.decoder)
        self.layers = [OneTokenLayer(*of) for of in zip(model.decoder, slots, cache.keys, cache.values)]
        self.direction = Direction(model.norm_head) if model.config.head_norm else None
        self.bias, self.to_words = model.head.bias, model.head.weight.mT
        pairs = model.config.d_head // 2
        self.apart = torch.eye(pairs).view(-1, 1, pairs, 1).to(self.bias)  # pairs do not mix
        self.block = torch.tensor([[1.0, 0, 0, 1], [0, 1, -1, 0]]).to(self.bias)  # (x1, x2) -> cos (x1, x2) + sin (-x2, x1)

    def as_matrix(self, rotation: Tensor) -> Tensor:
        """M (K, K) of a rotation: a head x (1, K) becomes x M."""
        pairs = torch.view_as_real(rotation) if rotation.is_complex() else rotation  # (K/2, 2): cosine, sine
        blocks = torch.mm(pairs.to(self.block), self.block).view(-1, 2, 1, 2)
        return (self.apart * blocks).view(2 * len(pairs), -1)

    def __call__(self, x: Tensor, rotation: Tensor, used: int) -> Tensor:
        turn = self.as_matrix(rotation)
        for layer in self.layers:
            x = layer.read_past(x, turn, used)
            if layer.slots is not None:
                x = layer.read_slots(x, turn)
            x = layer.think(x)
        return torch.addmm(self.bias, x if self.direction is None else self.direction(x) * self.direction.scale, self.to_words)


class Direction:
    """u(x) of a norm, and the `scale` (D) that makes N(x) of it: x (1, D) -> (1, D), of length 1."""

    def __init__(self, norm: RMSNorm):
        D = len(norm.weight)
        self.scale, self.tiny = math.sqrt(D) * norm.weight, (D * norm.tiny).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.tiny)

    def into(self, *weights: Tensor) -> Tensor:
        """The maps (out, D) that follow the norm as a single one (D, all out), for u(x)."""
        return torch.cat([weight.mT for weight in weights], dim=1).mul_(self.scale.unsqueeze(1))


class OneTokenLayer:
    """A `DecoderLayer` for one token.

    Shapes:
        slots         their keys and values (1, kv heads, S, K), or None
        keys, values  of the tokens so far, and room for more (1, kv heads, capacity, K)
        x             (1, D), in and out
        turn          (K, K)
    """

    def __init__(self, layer: DecoderLayer, slots: tuple[Tensor, Tensor] | None, keys: Tensor, values: Tensor):
        own, root = layer.attention, math.sqrt(layer.attention.d_head)
        self.heads, self.width, self.keys, self.values = (own.query_heads, own.kv_heads), own.d_head, keys[0], values[0]
        self.before_past = Direction(layer.norm_attention)
        self.to_qkv = self.before_past.into(own.to_q.weight / root, own.to_k.weight, own.to_v.weight)
        self.from_past, self.past_bias = own.to_out.weight.mT, own.to_out.bias
        self.slots = None if slots is None else [t[0].to(keys) for t in slots]  # (kv heads, S, K)
        if slots is not None:
            self.before_slots = Direction(layer.norm_memory)
            self.to_q = self.before_slots.into(layer.memory.to_q.weight / root)
            self.from_slots, self.slots_bias = layer.memory.to_out.weight.mT, layer.memory.to_out.bias
        self.before_thought, self.feedforward = Direction(layer.norm_feedforward), layer.feedforward
        if isinstance(layer.feedforward, FeedForward):
            self.maps = [(to.bias, to.weight.mT) for to in (layer.feedforward.to_hidden, layer.feedforward.to_out)]

    def read_past(self, x: Tensor, turn: Tensor, used: int) -> Tensor:
        """x + self-attention(N1(x)), x itself the last token that may be read."""
        hq, hkv = self.heads
        qkv = torch.mm(self.before_past(x), self.to_qkv).view(-1, self.width)  # (hq + 2 hkv, K)
        qk = torch.mm(qkv[: hq + hkv], turn)
        self.keys.select(1, used - 1).copy_(qk[hq:])
        self.values.select(1, used - 1).copy_(qkv[hq + hkv :])
        found = ask(qk[:hq], self.keys.narrow(1, 0, used), self.values.narrow(1, 0, used))
        return torch.addmm(x + self.past_bias, found, self.from_past)

    def read_slots(self, x: Tensor, turn: Tensor) -> Tensor:
        """x + cross-attention(q = N2(x), k = v = Ns(slots))"""
        q = torch.mm(torch.mm(self.before_slots(x), self.to_q).view(-1, self.width), turn)
        return torch.addmm(x + self.slots_bias, ask(q, *self.slots), self.from_slots)

    def think(self, x: Tensor) -> Tensor:
        """x + FF(N3(x))"""
        h = self.before_thought(x) * self.before_thought.scale
        if not isinstance(self.feedforward, FeedForward):
            return x + self.feedforward(h)
        (bias, to_hidden), (out_bias, to_out) = self.maps
        linear, gate = torch.addmm(bias, h, to_hidden).chunk(2, dim=-1)
        return torch.addmm(x + out_bias, linear * F.silu(gate), to_out)


def ask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T) v of one token: q (H, K), k and v (kv heads, M, K) -> (1, heads K)."""
    if len(q) < len(k):
        q = q.repeat(len(k) // len(q), 1)
    scores = torch.bmm(k, q.view(len(k), -1, q.shape[1]).mT)  # (kv heads, M, heads that share one): compiled, this way copies no keys
    return torch.bmm(scores.softmax(1).mT, v).view(1, -1)
