"""One token more of one conversation: the decoder again, in as few calls as it takes.

With many tokens the products take the time. With a single one PyTorch's calls do: a row times a matrix is done sooner than
the next call is made. So the same mathematics is arranged anew, in fewer and larger calls:

    N(x) W = u(x) (sqrt(D) w W),  u(x) = x / sqrt(|x|^2 + D eps)      the scale w of a norm goes into the map that follows
    q | k | v = N(x) (Wq / sqrt(K) | Wk | Wv)                         one product for all three, one rotation for q and k
    A = softmax(q k^T) v                                              two products, over what the cache holds

The joined maps belong to the model and serve all its conversations; for itself a conversation keeps views and the head's scale.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import PAD
from rxt_lite.layers.blocks import DecoderLayer
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import turn
from rxt_lite.models.base import Cache


class Joined(NamedTuple):
    """The maps of a decoder layer that follow a norm, for u(x)."""

    to_qkv: Tensor  # (D, (hq + 2 hkv) K)
    to_slots: Tensor | None  # (D, hq K): the queries that the slots are asked
    scale: Tensor  # (D): before the feed-forward layer, whose maps stay as they are
    made_of: list[Tensor]  # copies of the weights that went in

    @classmethod
    def of(cls, layer: DecoderLayer) -> "Joined":
        own, memory = layer.attention, getattr(layer, "memory", None)
        slots = None if memory is None else join(layer.norm_memory, memory.d_head, memory.to_q)
        to_qkv = join(layer.norm_attention, own.d_head, own.to_q, own.to_k, own.to_v)
        return cls(to_qkv, slots, scale_of(layer.norm_feedforward), [w.clone() for w in cls.sources(layer)])

    @staticmethod
    def sources(layer: DecoderLayer) -> list[Tensor]:
        maps = [layer.norm_attention, layer.attention.to_q, layer.attention.to_k, layer.attention.to_v, layer.norm_feedforward]
        maps += [layer.norm_memory, layer.memory.to_q] if hasattr(layer, "memory") else []
        return [part.weight for part in maps]

    def still_of(self, layer: DecoderLayer) -> bool:
        now = self.sources(layer)
        return len(now) == len(self.made_of) and all(
            a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(now, self.made_of))


def join(norm: RMSNorm, d_head: int, to_q: nn.Module, *others: nn.Module) -> Tensor:
    return torch.cat([to_q.weight.mT / math.sqrt(d_head), *(to.weight.mT for to in others)], dim=1).mul_(scale_of(norm).unsqueeze(1))


def scale_of(norm: RMSNorm) -> Tensor:
    return math.sqrt(len(norm.weight)) * norm.weight


class ReadsOneMore:
    """For models with an embedding, decoder layers and a head: how they read on, one token at a time."""

    _joined: list[Joined] = []

    def joined(self) -> list[Joined]:
        """Checked at every event, since weights can change without telling, and kept as long as they are the same."""
        if len(self._joined) != len(self.decoder) or not all(map(Joined.still_of, self._joined, self.decoder)):
            self._joined = [Joined.of(layer) for layer in self.decoder]
        return self._joined

    def read_one(self, tokens: Tensor, cache: Cache) -> Tensor | None:
        """Logits (1, 1, V) after `tokens` (1, 1); None where more tokens, a gradient, the model or its precision want the long way."""
        c, device, exact = self.config, tokens.device.type, self.head.weight.dtype in (torch.float32, torch.float64)
        if tokens.numel() > 1 or cache.ragged or torch.is_grad_enabled() or c.query_key_norm or c.attention_gate or not exact:
            return None
        token = tokens.item()
        if token == PAD:
            return None
        if torch.is_autocast_enabled(device):  # a low precision saves nothing where one row is multiplied
            with torch.autocast(device, enabled=False):
                return self.read_one(tokens, cache)
        if cache.one_token is None:
            cache.one_token = OneToken(self, cache)
        one, place = cache.one_token, cache.admit_one()
        return self.next_logits(one, one.words[token : token + 1], one.rotations[place : place + 1], place + 1).unsqueeze(0)

    @staticmethod
    def next_logits(one: "OneToken", x: Tensor, rotation: Tensor, used: int) -> Tensor:
        """A single call, to be compiled as a whole."""
        return one(x, rotation, used)


class OneToken:
    """A decoder and its head, ready to read on after what is in `cache`.

    Shapes:
        x         (1, D)         an embedded token, the last of `used`
        rotation  (1, K/2) complex numbers, or (1, K/2, 2) cosines and sines
        returns   (1, V)
    """

    def __init__(self, model: ReadsOneMore, cache: Cache):
        slots, norm = cache.kept or [None] * len(model.decoder), model.decoder[0].norm_attention
        tiny = (len(norm.weight) * norm.tiny).sqrt()
        self.words, self.rotations = model.embedding.weight, model.rope.table
        self.layers = [OneTokenLayer(tiny, *of) for of in zip(model.decoder, model.joined(), slots, cache.store)]
        self.tiny, self.scale = tiny, scale_of(model.norm_head) if model.config.head_norm else None
        self.bias, self.to_words = of_one_row(model.head)

    def __call__(self, x: Tensor, rotation: Tensor, used: int) -> Tensor:
        for layer in self.layers:
            x = layer.read_past(x, rotation, used)
            if layer.slots is not None:
                x = layer.read_slots(x, rotation)
            x = layer.think(x)
        return torch.addmm(self.bias, x if self.scale is None else unit(x, self.tiny) * self.scale, self.to_words)


class OneTokenLayer:
    """A `DecoderLayer` for one token.

    Shapes:
        slots         their keys and values (1, kv heads, S, K), or None
        store         keys of the tokens so far, their values, and room for more (1, 2 kv heads, capacity, K)
        x             (1, D), in and out
        rotation      (1, K/2) or (1, K/2, 2)
    """

    def __init__(self, tiny: Tensor, layer: DecoderLayer, joined: Joined, slots: tuple[Tensor, Tensor] | None, store: Tensor):
        own = layer.attention
        self.tiny, self.joined, self.store = tiny, joined, store[0]
        self.heads, self.d_head = (own.query_heads, own.kv_heads), own.d_head
        self.from_past = of_one_row(own.to_out)
        self.slots = None if slots is None else [t[0].to(store) for t in slots]  # (kv heads, S, K)
        self.from_slots = None if slots is None else of_one_row(layer.memory.to_out)
        self.feedforward = layer.feedforward
        if isinstance(layer.feedforward, FeedForward):
            self.maps = of_one_row(layer.feedforward.to_hidden), of_one_row(layer.feedforward.to_out)

    def read_past(self, x: Tensor, rotation: Tensor, used: int) -> Tensor:
        """x + self-attention(N1(x)), x itself the last token that may be read."""
        hq, hkv = self.heads
        heads = torch.mm(unit(x, self.tiny), self.joined.to_qkv).view(-1, self.d_head)  # (hq + 2 hkv, K)
        turn_(heads[: hq + hkv], rotation)
        self.store.select(1, used - 1).copy_(heads[hq:])
        past = self.store.narrow(1, 0, used)
        bias, weight = self.from_past
        return onto(x + bias, ask(heads[:hq], past[:hkv], past[hkv:]), weight)

    def read_slots(self, x: Tensor, rotation: Tensor) -> Tensor:
        """x + cross-attention(q = N2(x), k = v = Ns(slots))"""
        q = torch.mm(unit(x, self.tiny), self.joined.to_slots).view(-1, self.d_head)
        turn_(q, rotation)
        bias, weight = self.from_slots
        return onto(x + bias, ask(q, *self.slots), weight)

    def think(self, x: Tensor) -> Tensor:
        """x + FF(N3(x))"""
        h = unit(x, self.tiny) * self.joined.scale
        if not isinstance(self.feedforward, FeedForward):
            return x + self.feedforward(h)
        (bias, to_hidden), (out_bias, to_out) = self.maps
        linear, gate = torch.addmm(bias, h, to_hidden).chunk(2, dim=-1)
        return onto(x + out_bias, linear * F.silu(gate), to_out)


def of_one_row(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Bias (1, out) and weight (in, out), views."""
    return linear.bias.unsqueeze(0), linear.weight.mT


def onto(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """x + y W, in the place of x."""
    return torch.addmm(x, y, weight, out=x)


def turn_(heads: Tensor, rotation: Tensor) -> None:
    """Every head (H, K) by `rotation`, in place."""
    pairs = heads.view(len(heads), -1, 2)
    if rotation.is_complex() and not torch.compiler.is_compiling():
        torch.view_as_complex(pairs).mul_(rotation)
    else:
        pairs.copy_(turn(pairs, rotation))


def unit(x: Tensor, tiny: Tensor) -> Tensor:
    """u(x), (1, D): of length 1, but for `tiny`, which keeps 0 from being divided by."""
    return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), tiny)


def ask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T) v of one token: q (H, K), k and v (kv heads, M, K) -> (1, heads K)."""
    if len(q) < len(k):
        q = q.repeat(len(k) // len(q), 1)
    q = q.view(len(k), -1, q.shape[1])  # (kv heads, heads that share one, K)
    if torch.compiler.is_compiling():  # the keys first, or compiled code copies them
        scores = torch.bmm(k, q.mT).mT
    else:
        scores = torch.bmm(q, k.mT)  # (kv heads, heads that share one, M)
    return torch.bmm(scores.softmax(-1), v).view(1, -1)
