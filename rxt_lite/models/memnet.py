"""MemNet: a controller with a window, and a memory bank that it reads, writes and forgets.

    h      = controller(tokens)                    causal; a token sees the last `window` tokens
    answer   y = N(h + read(N'(h), slots)),  logits = head(y + FF(y))           reads the slots, never changes them
    remember slots' = write(slots, N'(h))          once a step, from a step's tokens; a step is an event

In `forward_dialogue` and in a conversation a step is an event, and the controller sees no other event. In `forward_sequence`
every token is a step of its own, and the controller's window alone decides what it sees of the others: with a window that is
shorter than the task only the bank can carry anything across.

The residual sum is normalised before anything else sees it, so that what is read stays bounded however long a conversation is.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rxt_lite.config import PAD, MemNetConfig, ModelConfig
from rxt_lite.layers.blocks import DecoderLayer
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.linear import Linear
from rxt_lite.layers.memory_bank import MultiHeadMemoryBank, Slots, Wish
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import Rope
from rxt_lite.models.base import Cache, EventModel, cut_before


class Steps(NamedTuple):
    """What happened at each of M steps of T tokens each, with the gradient still in it."""

    logits: Tensor  # (B, M, T, V)
    read: Tensor  # (B, M, T, H, N): weights of reading, from the slots before the step
    write: Tensor  # (B, M, H, N): how much of each slot each head has rewritten
    gate: Tensor  # (B, M, H)
    before: Slots  # (B, M, N, ...): the slots before each step
    state: Tensor  # (B, N, 2D + 3): after the last step


class TransformerController(nn.Module):
    """Decoder layers over embedded tokens, each token seeing the last `window` of them, itself included.

    Shapes: x (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: MemNetConfig):
        super().__init__()
        self.window = config.window
        self.rope = Rope(config)
        self.layers = nn.ModuleList(DecoderLayer(config, memory=False) for _ in range(config.n_layers))

    def forward(self, x: Tensor, cache: Cache | None = None, tokens: Tensor | None = None) -> Tensor:
        """With a `cache`, x are the embedded `tokens` (B, T) that come after what it has seen."""
        if cache is None:
            positions, mask = torch.arange(x.shape[1], device=x.device).unsqueeze(0), None
            asked = positions
        else:
            positions, mask = cache.admit(tokens)
            asked = (cache.is_token[:, : cache.used].cumsum(1) - 1).clamp(min=0)  # where each key stands
        if self.window is not None:
            back = positions.unsqueeze(-1) - asked.unsqueeze(-2)  # (B, T, C): how far back a key lies
            near = (back >= 0) & (back < self.window)
            mask = near if mask is None else near & mask
        rotation = self.rope(positions if cache is not None else positions[0])
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, past=cache and cache.layer(index), mask=mask)
        return x


class MemNet(EventModel):
    """The state is the bank of every conversation, packed: (B, N, 2D + 3), keys, values, strength, age and usage."""

    Config = MemNetConfig

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not isinstance(config, MemNetConfig):  # a shape for any model: what it does not say of a bank stays at its default
            config = MemNetConfig(**asdict(config))
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.controller = TransformerController(config)
        self.norm_bank = RMSNorm(config.d_model)
        self.bank = MultiHeadMemoryBank(config)
        self.norm_fused = RMSNorm(config.d_model)
        self.feedforward = FeedForward(config)
        self.norm_head = RMSNorm(config.d_model)
        self.head = Linear(config.d_model, config.vocab_size)

    # ------------------------------------------------------------------------------------------ the contract
    def init_state(self, batch_size: int) -> Tensor:
        return self.bank.first_slots(batch_size).pack()

    def check_state(self, state: Tensor, batch_size: int) -> None:
        expected = batch_size, self.config.n_slots, 2 * self.config.d_model + 3
        if not isinstance(state, Tensor) or state.shape != expected:
            got = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(f"the bank is {got}, this model and batch need (batch, slots, 2 x width + 3) = {expected}; "
                             "start from model.init_state(batch_size)")

    def forward(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        return self.answer(self.controller(self.embedding(tokens)), Slots.unpack(state))[0]

    def remember(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        x, events = self.norm_bank(self.controller(self.embedding(tokens))), tokens.unsqueeze(1)
        return [*self.memories(x.unsqueeze(1), events, Slots.unpack(state))][-1][0].pack()

    def open(self, state: Tensor, capacity: int) -> Cache:
        self.check_state(state, len(state))
        return Cache(self.config, len(state), min(capacity, self.config.max_len), state, kept=Slots.unpack(state))

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        return self.answer(self.controller(self.embedding(tokens), cache, tokens), cache.kept)[0]

    # ------------------------------------------------------------------------------------------ its parts
    def answer(self, h: Tensor, slots: Slots, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V), or (M, V) of the places `where` (B, T), from what the controller says (B, T, D); and the read weights."""
        found, weights = self.bank.read(self.norm_bank(h), slots)
        y = self.norm_fused(h + found)
        y = y if where is None else y[where]
        return self.head(self.norm_head(y + self.feedforward(y))), weights

    def memories(self, x: Tensor, events: Tensor, slots: Slots, depth: int | None = None) -> Iterator[tuple[Slots, Tensor, Tensor]]:
        """(slots, amount, gate) after each of N events: x (B, N, T, D) of the tokens `events` (B, N, T).

        amount (B, H, N slots) is how much of each slot each head has rewritten; an event of padding changes nothing.
        """
        B, N, T = events.shape
        ignore, empty = events == PAD, (events == PAD).all(2)
        some = bool(ignore.any())
        flat = self.bank.propose(x.flatten(0, 1), (ignore & ~empty.unsqueeze(2)).flatten(0, 1) if some else None)
        wishes = zip(*(part.unflatten(0, (B, N)).unbind(1) for part in flat))
        for n, (wish, asking) in enumerate(zip(wishes, x.unbind(1))):
            if cut_before(n, depth):
                slots = Slots(*(part.detach() for part in slots))
            wish = Wish(*wish)
            with torch.no_grad():  # (B, T, H, N) -> (B, N): padding reads nothing
                reading = self.bank.read_weights(asking, slots).masked_fill(ignore[:, n, :, None, None], 0.0).amax((1, 2))
            written, amount = self.bank.write(slots, wish, reading)
            if some:
                same = empty[:, n, None]
                written = Slots(*(torch.where(same if new.ndim == 2 else same.unsqueeze(2), old, new) for old, new in zip(slots, written)))
            slots = written
            yield slots, amount, wish.gate

    # ------------------------------------------------------------------------------------------ many steps at once
    def forward_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        """The controller on all events, then the writes one after the other, then all answers. Equal to the plain loop."""
        B, N, T = events.shape
        flat = events.flatten(0, 1)  # (B N, T)
        self.check_tokens(flat)
        h = self.controller(self.embedding(flat)).unflatten(0, (B, N))  # (B, N, T, D)
        first = self.bank.first_slots(B)
        after = [slots for slots, _, _ in self.memories(self.norm_bank(h), events, first, depth)]
        before = Slots(*(torch.stack(part, 1).flatten(0, 1) for part in zip(first, *after[:-1])))  # of B N events
        if where is not None:
            return self.answer(h.flatten(0, 1), before, where.flatten(0, 1))[0]
        return self.answer(h.flatten(0, 1), before)[0].unflatten(0, (B, N))

    def forward_events(self, events: Tensor, state: Tensor | None = None, memory: bool = True) -> Steps:
        """`forward_dialogue` with everything that happened: each event (B, M, T) is a step, the controller sees it alone."""
        self.check_tokens(events.flatten(0, 1))
        h = self.controller(self.embedding(events.flatten(0, 1))).unflatten(0, events.shape[:2])  # (B, M, T, D)
        return self.run(h, events, state, memory)

    def forward_sequence(self, tokens: Tensor, state: Tensor | None = None, memory: bool = True) -> Steps:
        """Every token (B, M) is a step, and the controller goes over all of them at once: see `Steps`, where T is then 1.

        A step may also be a bag of W tokens (B, M, W), whose embeddings are added up.
        """
        bags = tokens if tokens.ndim == 3 else tokens.unsqueeze(2)
        self.check_tokens(bags[:, :, 0])
        if (bags == PAD).any():
            raise ValueError("a sequence of steps has no padding; cut it to the shortest, or use events")
        return self.run(self.controller(self.embedding(bags).sum(2)).unsqueeze(2), bags[:, :, :1], state, memory)

    def run(self, h: Tensor, events: Tensor, state: Tensor | None, memory: bool) -> Steps:
        """Write M steps one after the other, then answer all of them; with `memory=False` from an empty bank."""
        B, M, _ = events.shape
        first = empty = self.bank.first_slots(B)
        if state is not None:
            self.check_state(state, B)
            first = Slots.unpack(state)
        after, amounts, gates = zip(*self.memories(self.norm_bank(h), events, first))
        before = Slots(*(torch.stack(part, 1) for part in zip(first, *after[:-1])))  # (B, M, N, ...)
        read_from = before if memory else Slots(*(part.unsqueeze(1).expand(B, M, *part.shape[1:]) for part in empty))
        logits, weights = self.answer(h.flatten(0, 1), Slots(*(part.flatten(0, 1) for part in read_from)))
        return Steps(logits.unflatten(0, (B, M)), weights.unflatten(0, (B, M)), torch.stack(amounts, 1), torch.stack(gates, 1), before,
                     after[-1].pack())
