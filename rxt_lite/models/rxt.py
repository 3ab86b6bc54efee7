"""The Reactive Transformer: answers from a fixed-size short-term memory, and rewrites it afterwards.

    answer     logits = decoder(tokens, STM_{t-1})
    remember   ED     = encoder(query + answer)          hidden states after every layer
               STM_t  = memory_attention(STM_{t-1}, ED)

Source: arXiv 2510.03561 (independent implementation from the mathematics).

The weights by name, for whoever copies them from or into another implementation. `i` counts decoder layers from 0,
`l` encoder layers; what belongs to the memory carries all L layers on its first axis. q, k, v stand for `Hq K` and
`Hkv K` rows, heads one after another; o for `max(Hq, Hkv) K` columns. F is `d_ff`, or `d_expert` in an expert, and
the first F rows of `to_hidden` are the linear half, the last F the half that goes through SiLU.

    embedding.weight                                     V D         shared by encoder and decoder, N(0, 1), not scaled
    encoder.l.norm_attention.weight                      D           RMSNorm, eps 2^-23
    encoder.l.attention.to_{q,k,v}.weight                q D         no bias; RoPE on q and k, pairs (2i, 2i + 1)
    encoder.l.attention.to_out.{weight,bias}             D o, D
    encoder.l.norm_feedforward.weight                    D
    encoder.l.feedforward.to_hidden.{weight,bias}        2F D, 2F
    encoder.l.feedforward.to_out.{weight,bias}           D F, D
    decoder.i.norm_{attention,feedforward}.weight        D
    decoder.i.attention.*                                as above
    decoder.i.norm_memory.weight                         D           before the queries; RoPE on q only
    decoder.i.norm_slots.weight                          D           before the keys and values of the slots
    decoder.i.memory.*                                   as above    absent in layers without memory, as the two norms
    decoder.i.feedforward.to_{hidden,out}.{weight,bias}  as above    dense; with experts instead:
    decoder.i.feedforward.router.to_scores.weight        E D         no bias
    decoder.i.feedforward.to_hidden.{weight,bias}        E 2F D, E 1 2F
    decoder.i.feedforward.to_out.{weight,bias}           E D F, E 1 D
    decoder.i.feedforward.bias                           D           expert_bias="global" only, in place of the biases
    decoder.i.feedforward.shared.j.to_*                  as dense    shared expert j
    decoder.i.feedforward.to_share.weight                s D         s > 1 shared experts
    memory.norm_{stm,event}.weight                       L 1 1 D     before q, before k and v; RoPE on k only
    memory.attention.to_{q,k,v}.weight                   L q D
    memory.attention.to_out.{weight,bias}                L D o, L 1 D
    memory.names                                         L 1 S D     slot_embeddings: added to the normed slots that ask
    memory.gate.weight                                   L 1 S       static, elementwise
    memory.gate.to_gate.{weight,bias}                    L S S, L 1 S    linear; slot: L 1 2D, L 1 1 (old first, then new)
    memory.gate.to_statistic.{weight,bias}               L 1 D, L 1 1    gate_statistic="learned"
    memory.{norm,attention,gate}_first.*                 as above    slots among themselves, all variants but simple
    memory.norm_mean.weight                              D           interlayer, self_interlayer, grouped
    memory.gate_mean.*                                   as gate     self_interlayer, grouped
    *.attention.norm_{q,k}.weight                        K           in an attention: query_key_norm
    *.attention.to_gate.weight                           o D         in an attention: attention_gate
    norm_head.weight                                     D           head_norm
    head.{weight,bias}                                   V D, V      not tied to the embedding
    initial_slots                                        L S D       initial_slots="learned"
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from rxt_lite.config import PAD, ModelConfig
from rxt_lite.layers.blocks import DecoderLayer, EncoderLayer
from rxt_lite.layers.linear import Linear
from rxt_lite.layers.memory import MemoryAttention
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import Rope
from rxt_lite.models.base import Cache, EventModel, cut_before
from rxt_lite.models.one_token import ReadsOneMore


class RxT(ReadsOneMore, EventModel):
    """Decoder with memory cross-attention, encoder, memory attention; one shared embedding.

    The state is the STM, (L, B, S, D): for every layer and conversation, S slots of width D. Decoder layers
    without memory (`stateless_before`, `stateless_after`) stand below and above the L that read a bank each.

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
        before, reading = config.stateless_before, config.stateless_before + config.n_layers
        self.decoder = nn.ModuleList(DecoderLayer(config, before <= i < reading) for i in range(config.n_decoder_layers))
        self.norm_head = RMSNorm(config.d_model) if config.head_norm else nn.Identity()
        self.head = Linear(config.d_model, config.vocab_size)
        if config.initial_slots == "learned":
            self.initial_slots = nn.Parameter(torch.randn(config.n_layers, config.n_slots, config.d_model))

    def init_state(self, batch_size: int) -> Tensor:
        """STM (L, B, S, D) before the first event: the learned start, or fresh N(0, 1) noise."""
        shape = self.state_shape(batch_size)
        if self.config.initial_slots == "learned":
            return self.initial_slots.unsqueeze(1).expand(shape)
        return torch.randn(shape, device=self.device, dtype=self.embedding.weight.dtype)

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
        return self.encoded(tokens, self.rope(torch.arange(tokens.shape[1], device=tokens.device)), mask)

    def encoded(self, tokens: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """All layers' outputs (L, B, T, D)."""
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

    def read_slots(self, stm: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        """Keys and values of the slots (L, B, S, D) for every decoder layer, None for those without memory."""
        c = self.config
        banks = [None] * c.stateless_before + list(stm) + [None] * c.stateless_after
        return [None if slots is None else layer.read_slots(slots) for layer, slots in zip(self.decoder, banks)]

    def decode(self, tokens: Tensor, slots: list, cache: Cache | None = None, where: Tensor | None = None,
               slots_mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V), or (M, V) of the places `where` (B, T); `slots_mask` (B, 1, S) is True on slots that may be read."""
        return self.head(self.last(tokens, slots, cache, where, slots_mask))

    def last(self, tokens: Tensor, slots: list, cache: Cache | None = None, where: Tensor | None = None,
             slots_mask: Tensor | None = None) -> Tensor:
        """What the head makes logits of: (B, T, D), or (M, D)."""
        if cache is None:
            positions, mask = torch.arange(tokens.shape[1], device=tokens.device), None
        else:
            positions, mask = cache.admit(tokens)  # what the host decides stays out of the layers: they compile as a whole
        x = self.hidden(tokens, self.rope(positions), slots, cache, mask, slots_mask)
        return self.norm_head(x if where is None else x[where])

    def hidden(self, tokens: Tensor, rotation: Tensor, slots: list, cache: Cache | None, mask: Tensor | None,
               slots_mask: Tensor | None) -> Tensor:
        """The last layer's output (B, T, D)."""
        x = self.embedding(tokens)
        for index, layer in enumerate(self.decoder):
            x = layer(x, rotation, slots[index], cache and cache.layer(index), mask, slots_mask)
        return x

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
        return Cache(self.config, B, min(capacity, self.config.max_len), state, kept=slots)

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        one = self.read_one(tokens, cache)
        return self.decode(tokens, cache.kept, cache) if one is None else one

    def memories(self, encoded: Tensor, events: Tensor, depth: int | None = None) -> Iterator[Tensor]:
        """STM (L, B, S, D) before each of N events and after the last: N + 1 of them, each made when it is asked for.

        encoded (L, B, N, T, D) as `encode` saw the events (B, N, T). With `depth` the memory is cut from its past
        after every `depth` events, so that a gradient reaches at most so many updates back.
        """
        stm = self.init_state(len(events))
        yield stm
        for n in range(events.shape[1]):
            if cut_before(n, depth):
                stm = stm.detach()
            stm = self.write(stm, encoded[:, :, n], events[:, n])
            yield stm

    def forward_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        return self.head(self.last_of_dialogue(events, where, depth))

    def last_of_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        """All events in three large steps: encode all, write one after the other, decode all.

        The encoder does not see the STM and the decoder does not change it, so only the writes must
        wait for each other. Equal to the plain loop (a test holds it to that).
        """
        B, N, T = events.shape
        flat = events.flatten(0, 1)  # (B N, T)
        self.check_tokens(flat)
        encoded = self.encode(flat).unflatten(1, (B, N))  # (L, B, N, T, D)
        before = torch.stack(list(islice(self.memories(encoded, events, depth), N)), dim=2).flatten(1, 2)  # (L, B N, S, D)
        if where is not None:
            return self.last(flat, self.read_slots(before), where=where.flatten(0, 1))
        return self.last(flat, self.read_slots(before)).unflatten(0, (B, N))
