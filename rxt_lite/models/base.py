"""What every model in the book can do: answer from a state, then fold the finished event into it.

    answer:    logits = model(tokens, state)             reads the state, never changes it
    remember:  state' = model.remember(tokens, state)    state in, new state out

Tokens are right-padded with PAD, and padding never changes a result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rxt_lite.config import PAD, ModelConfig

State = Any  # slots, a transcript, (h, c): tensors, opaque to everyone but their model


def pack(tokens: Tensor) -> Tensor:
    """Close the gaps: (B, T) with PAD anywhere -> (B, T') with each row's tokens first, in order, T' the longest."""
    order = (tokens == PAD).to(torch.uint8).argsort(dim=1, stable=True)
    longest = int((tokens != PAD).sum(1).max()) if tokens.numel() else 0
    return tokens.gather(1, order)[:, :longest]


def join(query: Tensor, answer: Tensor) -> Tensor:
    """The finished event: (B, Tq) queries and (B, Ta) answers, both right-padded -> (B, T), right-padded."""
    return pack(torch.cat([query, answer], dim=1))


def cut_before(n: int, depth: int | None) -> bool:
    """Is the memory cut from its past before update n? At every `depth`-th, never where it is None."""
    if depth is not None and depth < 1:
        raise ValueError(f"depth={depth} must be at least 1, or None to go back through all events")
    return depth is not None and n > 0 and n % depth == 0


class Cache:
    """What a decoder keeps while it reads one event: keys and values of the tokens so far, for each layer.

    `kept` is whatever the model computes once per event (the slots' keys and values). Room for
    `capacity` tokens is taken at the start; attention runs over the used part only.

    Shapes: keys, values (decoder layers, B, kv heads, capacity, K), halves of `store`; is_token (B, capacity).
    """

    def __init__(self, config: ModelConfig, batch_size: int, capacity: int, like: Tensor, kept: Any = None):
        heads = 2 * config.heads("self")[1]
        self.store = like.new_empty(config.n_decoder_layers, batch_size, heads, capacity, config.d_head)
        self.is_token = torch.ones(batch_size, capacity, dtype=torch.bool, device=like.device)
        self.used = 0  # columns in use: the same for all rows, some of them padding
        self.ragged = False  # True once any row has been padded
        self.kept = kept
        self.one_token = None  # a model's short way to read one token more, once it has taken it

    @property
    def keys(self) -> Tensor:
        return self.store.chunk(2, dim=2)[0]

    @property
    def values(self) -> Tensor:
        return self.store.chunk(2, dim=2)[1]

    @property
    def length(self) -> Tensor:
        """How many tokens each row has, (B)."""
        return self.is_token[:, : self.used].sum(1)

    def check_room(self, more: int) -> None:
        if self.used + more > self.is_token.shape[1]:
            raise ValueError(f"the cache holds {self.is_token.shape[1]} tokens, {self.used} used; {more} more do not fit")

    def admit(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Make room for `tokens` (B, T); returns their positions (B, T), or (1, T) where no row is padded, and the
        mask (B or 1, T, used), or None for plain causal: what is decided here, the layers need not ask."""
        T, start, is_token = tokens.shape[1], self.used, tokens != PAD
        self.check_room(T)
        self.is_token[:, start : start + T] = is_token
        self.used, self.ragged = start + T, self.ragged or not bool(is_token.all())
        if self.ragged:
            count = self.is_token[:, : self.used].cumsum(1)[:, start:]
            positions = (count - 1).clamp(min=0)  # a padded place repeats its neighbour's position
        else:
            positions = torch.arange(start, self.used, device=tokens.device).unsqueeze(0)
        if start == 0 or (T == 1 and not self.ragged):  # right padding comes after every token that matters
            return positions, None
        earlier = torch.ones(T, self.used, dtype=torch.bool, device=tokens.device).tril(start)
        return positions, earlier & self.is_token[:, None, : self.used]

    def admit_one(self) -> int:
        """Make room for one token of the only row, which is not padding; returns its position."""
        self.check_room(1)
        self.used += 1  # `is_token` is True everywhere as long as nothing is ragged
        return self.used - 1

    def layer(self, index: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """For one layer: store the new keys and values (B, kv heads, T, K), return all of them so far."""

        def past(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            new = k.shape[2]
            keys, values = self.store[index].narrow(2, 0, self.used).chunk(2, dim=1)
            keys.narrow(2, self.used - new, new).copy_(k)
            values.narrow(2, self.used - new, new).copy_(v)
            return keys, values

        return past


class EventModel(nn.Module):
    """The contract. Subclasses write `init_state`, `check_state`, `forward`, `remember`, `open` and `extend`.

    Shapes:
        tokens (B, T)      one event (or its beginning), right-padded
        events (B, N, T)   N events of B dialogues; an event of PAD alone changes nothing
        logits (B, T, V)
    """

    Config = ModelConfig  # what a saved model's numbers are read as
    config: ModelConfig

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def init_state(self, batch_size: int) -> State:
        """The state before anything was said."""
        raise TypeError(f"{type(self).__name__} must define init_state")

    def remember(self, tokens: Tensor, state: State) -> State:
        """The state after the finished event `tokens` (B, T); `state` itself stays as it was."""
        raise TypeError(f"{type(self).__name__} must define remember")

    def open(self, state: State, capacity: int) -> Cache:
        """Begin an event of at most `capacity` tokens: compute what is computed once per event."""
        raise TypeError(f"{type(self).__name__} must define open")

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read on: logits (B, T, V) of `tokens` after all that `cache` has seen; the cache grows."""
        raise TypeError(f"{type(self).__name__} must define extend")

    @staticmethod
    def detach(state: State) -> State:
        """The same state, cut from the computation that made it."""
        return state.detach()

    def forward_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        """Logits (B, N, T, V) of every event, each answered from the memory of those before it.

        `where` (B, N, T) asks for the M places that are True in it only: logits (M, V), in their order. With `depth`
        the state is cut from its past after every `depth` events: a gradient reaches at most so many updates back.
        The plain loop of the event cycle; a model that can do the same in fewer, larger products overrides it.
        """
        state, logits = self.init_state(len(events)), []
        for n, tokens in enumerate(events.unbind(1)):
            logits.append(self(tokens, state))
            state = self.remember(tokens, self.detach(state) if cut_before(n, depth) else state)
        logits = torch.stack(logits, dim=1)
        return logits if where is None else logits[where]

    def last_of_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor | None:
        """What the head makes the logits of `forward_dialogue` from, (M, D) or (B, N, T, D); None where they come otherwise."""
        return None

    @staticmethod
    def batch_size(state: State) -> int:
        """How many conversations `state` holds."""
        return len(state)

    @staticmethod
    def select(state: State, rows: Tensor) -> State:
        """The states of the conversations `rows` (whole numbers), in that order."""
        return state[rows]

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """One state of all the conversations of `states`, in that order: what `select` takes apart again."""
        return torch.cat(list(states))

    def room(self, state: State) -> int:
        """How many tokens the next event may have: the window, less what `state` takes up of it."""
        return self.config.max_len

    def check_state(self, state: State, batch_size: int) -> None:
        """One clear error for a state that is not one of this model's, of `batch_size` conversations."""
        raise TypeError(f"{type(self).__name__} must define check_state")

    def check_tokens(self, tokens: Tensor, room: int | None = None) -> None:
        """One clear error for tokens that this model cannot read."""
        if tokens.ndim != 2 or tokens.shape[1] == 0 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"tokens must be whole numbers of shape (batch, tokens), at least one token; "
                f"got {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        room = self.config.max_len if room is None else room
        if tokens.shape[1] > room:
            raise ValueError(
                f"{tokens.shape[1]} tokens do not fit the window of max_len={room}; "
                "shorten the text or build the model with a larger max_len"
            )
