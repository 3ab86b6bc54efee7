"""A memory bank: N slots that several heads read by content, and write where their policy says.

    address    w_h = softmax over the k best slots of  beta_h cos(q_h, key_n)         beta_h > 0 is learned
    read       r   = W [r_1 .. r_H],   r_h = sum_n w_hn value_n

    amount     a_hn = g_h w'_hn                       g_h: write gate;  w'_h: where head h writes
    fade, erase, add
               value_n    <- lambda_n value_n prod_h (1 - a_hn e_h) + sum_h a_hn v_h  lambda_n is learned; e_h: from 0 to 1 by feature
               key_n      <- key_n prod_h (1 - a_hn) + sum_h a_hn k_h
               strength_n <- lambda_n strength_n (1 - m_n) + m_n                      m_n = 1 - prod_h (1 - a_hn): rewritten by any head
    age        age_n      <- (age_n + 1) (1 - m_n)                                    0 after a full write
    usage      usage_n    <- 0.95 usage_n + m_n + largest weight with which n was read

Where a head writes is its policy:

    content    like reading: the k slots whose keys are most like its own
    lru        head h takes the slot that is h-th in age, all of it: the least recently used (written; with `read_refreshes`, or read)
    priority   one slot, the best in  beta_h cos(k_h, key_n) + p_h . [1/(1 + age_n), usage_n/(1 + usage_n), strength_n],  p_h learned;
               a step backward it is the softmax over the k best that learns (straight-through)
    random     one slot by lot: the control

Closed gates (g = 0) leave keys and values as they are, to the bit. One head that writes all of one slot, with e = 1, replaces it.
While nobody writes a slot, the length of its value falls as the power of lambda_n; cosines with its key do not see that, a reader
does. The strength says how much of the last write is left.

Sources: addressing, erase and add, Graves et al., arXiv 1410.5401; usage, Santoro et al., arXiv 1605.06065; the bank with learned
decay and a bottleneck follows the public description of MemNet (github.com/Ant1pozitive/memory-is-all-you-need),
with its equations repaired; the book's chapter lists the differences.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import MemNetConfig
from rxt_lite.layers.linear import LayerwiseLinear, Linear

USAGE_KEPT = 0.95  # of the usage, a step


class Slots(NamedTuple):
    """What a bank holds. One conversation's is one tensor row when packed: (B, N, 2D + 3)."""

    keys: Tensor  # (B, N, D)
    values: Tensor  # (B, N, D)
    strength: Tensor  # (B, N), from 0 (nothing there) to 1 (just written)
    age: Tensor  # (B, N), steps since it was written
    usage: Tensor  # (B, N)

    def pack(self) -> Tensor:
        return torch.cat([self.keys, self.values, torch.stack([self.strength, self.age, self.usage], dim=-1)], dim=-1)

    @staticmethod
    def unpack(state: Tensor) -> "Slots":
        D = (state.shape[-1] - 3) // 2
        keys, values, rest = state.split([D, D, 3], dim=-1)
        return Slots(keys, values, *rest.unbind(-1))


class Wish(NamedTuple):
    """What H heads want to write."""

    key: Tensor  # (B, H, D)
    value: Tensor  # (B, H, D)
    gate: Tensor  # (B, H)
    erase: Tensor  # (B, H, D), or (B, H, 1) where a slot is erased as a whole


class SemanticBottleneck(nn.Module):
    """Squeeze what is to be kept through a few features: W2 GELU(W1 x). Shapes: x (..., D) -> (..., D)."""

    def __init__(self, config: MemNetConfig):
        super().__init__()
        self.to_few = Linear(config.d_model, config.d_bottleneck)
        self.to_value = Linear(config.d_bottleneck, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_value(F.gelu(self.to_few(x)))


def sparse_softmax(scores: Tensor, k: int) -> Tensor:
    """Softmax over the k largest of the last axis, 0 elsewhere: (..., N) -> (..., N). k >= N is the plain softmax."""
    if k >= scores.shape[-1]:
        return scores.softmax(-1)
    best = scores.topk(k, dim=-1)
    return torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1).to(scores.dtype))


def over_heads(kept: Tensor) -> Tensor:
    """Product over the heads, (B, H, ...) -> (B, ...): plain products, for the gradient of `prod` is slow where a factor is 0."""
    product, *others = kept.unbind(1)
    for other in others:
        product = product * other
    return product


class MultiHeadMemoryBank(nn.Module):
    """N slots of width D for each conversation, read and written by H heads. It keeps no state: slots go in, slots come out.

    Shapes:
        x       (B, T, D)   tokens that read, or the event that is written
        slots   Slots of B conversations
        weights (B, T, H, N) of reading, each a share: sums to 1 over N
        amount  (B, H, N)   how much of each slot each head has rewritten
    """

    def __init__(self, config: MemNetConfig):
        super().__init__()
        self.config, D, H, N = config, config.d_model, config.bank_heads, config.n_slots
        start = nn.init.orthogonal_(torch.empty(N, D)) if N <= D else F.normalize(torch.randn(N, D), dim=-1)
        self.first_keys = nn.Parameter(start)  # so that slots differ before anything is written
        self.to_query = Linear(D, H * D, bias=False)
        self.to_out = Linear(H * D, D, bias=False)
        self.read_sharpness, self.write_sharpness = (nn.Parameter(torch.full((H, 1), 8.0)) for _ in range(2))
        self.to_place = Linear(D, 2 * H)  # which token of an event gives a head its key, and which its value
        self.to_key = LayerwiseLinear(H, D, D, bias=False)
        self.to_value = SemanticBottleneck(config)
        self.to_gate = LayerwiseLinear(H, 2 * D, 1)
        self.to_erase = LayerwiseLinear(H, D, D if config.erase == "feature" else 1) if config.erase != "all" else None
        nn.init.constant_(self.to_gate.bias, 3.0)  # begin by writing: what was never written can teach nothing
        if self.to_erase is not None:
            nn.init.constant_(self.to_erase.bias, 2.0)
        if config.write_policy == "priority":
            self.priority = nn.Parameter(torch.full((H, 3), -2.0))  # begin by preferring old, unused and faded slots
        if config.decay is not None:
            self.keep = nn.Parameter(torch.full((N,), math.log(config.decay / (1 - config.decay))))

    def first_slots(self, batch_size: int) -> Slots:
        """Empty slots: keys of their own, no value, no strength; slot 0 is the oldest."""
        keys = self.first_keys.expand(batch_size, -1, -1)
        none = torch.zeros_like(keys[..., 0])
        age = torch.arange(self.config.n_slots, 0, -1, device=keys.device, dtype=keys.dtype).expand(batch_size, -1)
        return Slots(keys, torch.zeros_like(keys) if self.config.separate_keys else keys, none, age, none)

    # ------------------------------------------------------------------------------------------ reading
    def cosines(self, asked: Tensor, slots: Slots) -> Tensor:
        """Cosines of (B, M, D) with the keys: (B, M, N)."""
        return F.normalize(asked, dim=-1) @ F.normalize(slots.keys, dim=-1).mT

    def read_weights(self, x: Tensor, slots: Slots) -> Tensor:
        H = self.config.bank_heads
        asked = self.to_query(x).unflatten(-1, (H, -1)).flatten(1, 2)  # (B, T H, D)
        cosines = self.cosines(asked, slots).unflatten(1, (-1, H))  # (B, T, H, N)
        return sparse_softmax(F.softplus(self.read_sharpness) * cosines, self.config.top_k)

    def read(self, x: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
        """What `x` finds (B, T, D), and the weights with which it looked (B, T, H, N)."""
        weights = self.read_weights(x, slots)
        found = weights.flatten(1, 2).to(slots.values.dtype) @ slots.values  # (B, T H, D)
        return self.to_out(found.unflatten(1, weights.shape[1:3]).flatten(2)), weights

    # ------------------------------------------------------------------------------------------ writing
    def propose(self, x: Tensor, ignore: Tensor | None = None) -> Wish:
        """What each head wants to write of an event (B, T, D); `ignore` (B, T) is True on padding."""
        H = self.config.bank_heads
        scores = self.to_place(x)  # (B, T, 2H)
        if ignore is not None:
            scores = scores.masked_fill(ignore.unsqueeze(-1), -1e9)
        chosen = scores.softmax(1).mT.to(x.dtype) @ x  # (B, 2H, D)
        of_key, of_value = (t.transpose(0, 1).unsqueeze(2) for t in chosen.split(H, dim=1))  # (H, B, 1, D)
        by_head = lambda t: t.squeeze(2).transpose(0, 1)  # noqa: E731  (H, B, 1, M) -> (B, H, M)
        key, value = by_head(self.to_key(of_key)), by_head(self.to_value(of_value))
        erase = torch.ones_like(value[..., :1]) if self.to_erase is None else by_head(self.to_erase(of_value)).sigmoid()
        if self.config.write_gate == "open":
            gate = torch.ones_like(value[..., 0])
        else:
            gate = by_head(self.to_gate(torch.cat([of_key, of_value], dim=-1))).squeeze(-1).sigmoid()
        return Wish(key, value, gate, erase)

    def place(self, key: Tensor, slots: Slots) -> Tensor:
        """Where each head writes, as its policy says: keys (B, H, D) -> shares (B, H, N) that sum to 1."""
        policy, (H, N) = self.config.write_policy, (key.shape[1], slots.age.shape[1])
        if policy in ("lru", "random"):
            order = slots.age if policy == "lru" else torch.rand_like(slots.age)
            return F.one_hot(order.topk(H, dim=-1).indices, N).to(key.dtype)
        scores = F.softplus(self.write_sharpness) * self.cosines(key, slots)  # (B, H, N)
        if policy == "content":
            return sparse_softmax(scores, self.config.top_k)
        known = torch.stack([1 / (1 + slots.age), slots.usage / (1 + slots.usage), slots.strength], dim=1)  # (B, 3, N)
        scores, taken, chosen = scores + self.priority @ known, torch.zeros_like(slots.age, dtype=torch.bool), []
        for of_head in scores.unbind(1):  # one after the other: no two heads take the same slot
            soft = sparse_softmax(of_head.masked_fill(taken, -1e9), self.config.top_k)
            hard = F.one_hot(soft.argmax(-1), N)
            taken = taken | hard.bool()
            chosen.append(hard + (soft - soft.detach()))
        return torch.stack(chosen, dim=1)

    def write(self, slots: Slots, wish: Wish, reading: Tensor | None = None) -> tuple[Slots, Tensor]:
        """The slots one step later, and how much of each every head has rewritten (B, H, N).

        reading   (B, N): the largest weight with which each slot was read in this step, if it was
        """
        amount = wish.gate.unsqueeze(-1) * self.place(wish.key, slots)
        return self.put(slots, wish, amount, reading), amount

    def put(self, slots: Slots, wish: Wish, amount: Tensor, reading: Tensor | None = None) -> Slots:
        """Erase and add where `amount` (B, H, N) says."""
        c, kept = self.config, over_heads(1 - amount)  # (B, N)
        erased = over_heads(1 - amount.unsqueeze(-1) * wish.erase.unsqueeze(2))  # (B, N, D)
        values, strength = slots.values, slots.strength
        if c.decay is not None:
            fade = self.keep.sigmoid()  # (N)
            values, strength = values * fade.unsqueeze(-1), strength * fade
        values = values * erased + amount.mT @ wish.value.to(amount.dtype)
        strength = strength * kept + (1 - kept)
        if c.renormalise:  # as the public code does: length 1 after every step, and the decay a constant factor
            length = values.norm(dim=-1, keepdim=True)  # an empty slot stays empty: dividing it would blow up the gradient
            values = torch.where(length > 1e-6, values / length.clamp(min=1e-6), values) * (1.0 if c.decay is None else fade.unsqueeze(-1))
        keys = values
        if c.separate_keys:
            keys = slots.keys * kept.unsqueeze(-1) + amount.mT @ wish.key.to(amount.dtype)
        with torch.no_grad():  # bookkeeping
            age, usage = (slots.age + 1) * kept, USAGE_KEPT * slots.usage + 1 - kept
            if reading is not None:
                usage = usage + reading
                age = torch.where(reading > 0.5, 0.0, age) if c.read_refreshes else age
        return Slots(keys, values, strength, age, usage)
