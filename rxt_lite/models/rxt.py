"""The Reactive Transformer: answers from a fixed-size short-term memory, and rewrites it afterwards.

    answer     logits = decoder(tokens, STM_{t-1})
    remember   ED     = encoder(query + answer)          hidden states after every layer
               STM_t  = memory_attention(STM_{t-1}, ED)

Source: arXiv 2510.03561 (independent implementation from the mathematics).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rxt_lite.config import PAD, ModelConfig
from rxt_lite.layers.blocks import DecoderLayer, EncoderLayer
from rxt_lite.layers.memory import MemoryAttention
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import Rope
from rxt_lite.models.base import Cache, EventModel


class RxT(EventModel):
    """Decoder with memory cross-attention, encoder, memory attention; one shared embedding.

    The state is the STM, (L, B, S, D): for every layer and conversation, S slots of width D.

    Conventions: embedding N(0, 1); separate head with bias; RMSNorm before it unless head_norm=False;
    RoPE restarts at 0 with every event.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.rope = Rope(config)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.memory = MemoryAttention(config)
        self.decoder = nn.ModuleList(DecoderLayer(config, memory=True) for _ in range(config.n_layers))
        self.norm_head = RMSNorm(config.d_model) if config.head_norm else nn.Identity()
        self.head = nn.Linear(config.d_model, config.vocab_size)
        if config.initial_slots == "learned":
            self.initial_slots = nn.Parameter(torch.randn(config.n_layers, config.n_slots, config.d_model))

    def init_state(self, batch_size: int) -> Tensor:
        """STM (L, B, S, D) before the first event: the learned start, or fresh N(0, 1) noise."""
        shape = self.state_shape(batch_size)
        if self.config.initial_slots == "learned":
            return self.initial_slots.unsqueeze(1).expand(shape)
        return torch.randn(shape, device=self.device)

    def state_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        c = self.config
        return c.n_layers, batch_size, c.n_slots, c.d_model

    @staticmethod
    def batch_size(state: Tensor) -> int:
        return state.shape[1]

    @staticmethod
    def select(state: Tensor, rows: Tensor) -> Tensor:
        return state[:, rows]

    @staticmethod
    def stack(states: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(states), dim=1)

    def check_state(self, stm: Tensor, batch_size: int) -> None:
        expected = self.state_shape(batch_size)
        if not isinstance(stm, Tensor) or stm.shape != expected:
            got = tuple(stm.shape) if isinstance(stm, Tensor) else type(stm).__name__
            raise ValueError(
                f"stm is {got}, this model and batch need (layers, batch, slots, width) = {expected}; "
                "start from model.init_state(batch_size)"
            )

    def encode(self, tokens: Tensor) -> Tensor:
        """ED (L, B, T, D): the event (B, T) after every encoder layer. The encoder never sees the STM."""
        ignore = self.ignored(tokens)
        mask = ~ignore[:, None].expand(-1, tokens.shape[1], -1) if ignore.any() else None  # (B, T, T)
        rotation = self.rope(torch.arange(tokens.shape[1], device=tokens.device))
        x, layers = self.embedding(tokens), []
        for layer in self.encoder:
            x = layer(x, rotation, mask)
            layers.append(x)
        return torch.stack(layers)

    @staticmethod
    def ignored(tokens: Tensor) -> Tensor:
        """True where a token is padding, (B, T). An empty event hides nothing: softmax over nothing is not a number."""
        ignore = tokens == PAD
        return ignore & ~ignore.all(1, keepdim=True)

    def write(self, stm: Tensor, encoded: Tensor, tokens: Tensor) -> Tensor:
        """STM (L, B, S, D) after the encoded event (L, B, T, D); rows whose event is empty keep theirs."""
        rotation = self.rope(torch.arange(tokens.shape[1], device=tokens.device))
        ignore = self.ignored(tokens)
        written = self.memory(stm, encoded, rotation, ignore if ignore.any() else None)
        empty = (tokens == PAD).all(1)
        return torch.where(empty[:, None, None], stm, written) if empty.any() else written

    def read_slots(self, stm: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the slots (L, B, S, D) for every decoder layer."""
        return [layer.read_slots(slots) for layer, slots in zip(self.decoder, stm)]

    def decode(self, tokens: Tensor, slots: list, cache: Cache | None = None, where: Tensor | None = None) -> Tensor:
        if cache is None:
            rotation, mask = self.rope(torch.arange(tokens.shape[1], device=tokens.device)), None
        else:
            positions, mask = cache.admit(tokens)
            rotation = self.rope(positions)  # (B, T, K/2)
        x = self.embedding(tokens)
        for index, layer in enumerate(self.decoder):
            x = layer(x, rotation, slots[index], cache and cache.layer(index), mask)
        return self.head(self.norm_head(x if where is None else x[where]))

    def forward(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        return self.decode(tokens, self.read_slots(state))

    def remember(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        return self.write(state, self.encode(tokens), tokens)

    def open(self, state: Tensor, capacity: int) -> Cache:
        B = self.batch_size(state)
        self.check_state(state, B)
        slots = self.read_slots(state)
        return Cache(self.config, B, min(capacity, self.config.max_len), slots[0][0], kept=slots)

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        return self.decode(tokens, cache.kept, cache)

    def forward_dialogue(self, events: Tensor, where: Tensor | None = None) -> Tensor:
        """All events in three large steps: encode all, write one after the other, decode all.

        The encoder does not see the STM and the decoder does not change it, so only the writes must
        wait for each other. Equal to the plain loop (a test holds it to that).
        """
        B, N, T = events.shape
        flat = events.flatten(0, 1)  # (B N, T)
        self.check_tokens(flat)
        encoded = self.encode(flat).unflatten(1, (B, N))  # (L, B, N, T, D)
        stm, before = self.init_state(B), []
        for n in range(N):
            before.append(stm)
            if n + 1 < N:
                stm = self.write(stm, encoded[:, :, n], events[:, n])
        before = torch.stack(before, dim=2).flatten(1, 2)  # (L, B N, S, D)
        if where is not None:
            return self.decode(flat, self.read_slots(before), where=where.flatten(0, 1))
        return self.decode(flat, self.read_slots(before)).unflatten(0, (B, N))
