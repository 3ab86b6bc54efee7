"""The stateless baseline: a decoder-only language model that rereads the whole transcript at every turn.

    answer     logits = decoder(transcript + tokens)
    remember   transcript' = transcript + tokens
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import BOS, PAD, ModelConfig
from rxt_lite.layers.blocks import DecoderLayer
from rxt_lite.layers.linear import Linear
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import Rope
from rxt_lite.models.base import Cache, EventModel, pack
from rxt_lite.models.one_token import ReadsOneMore


class DecoderLM(ReadsOneMore, EventModel):
    """The same decoder as RxT's without memory cross-attention; the state is the transcript (B, C), right-padded.

    `max_len` bounds the whole transcript. Events are read as RxT reads them, [BOS][Q]query[A]answer[EOS]
    one after another, so both models are asked for the same tokens. It has as many layers as an RxT's whole decoder.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.rope = Rope(config)
        self.decoder = nn.ModuleList(DecoderLayer(config, memory=False) for _ in range(config.n_decoder_layers))
        self.norm_head = RMSNorm(config.d_model) if config.head_norm else nn.Identity()
        self.head = Linear(config.d_model, config.vocab_size)

    def init_state(self, batch_size: int) -> Tensor:
        return torch.empty(batch_size, 0, dtype=torch.long, device=self.device)

    @staticmethod
    def select(state: Tensor, rows: Tensor) -> Tensor:
        return pack(state[rows])  # no wider than if these conversations had never met the others

    @staticmethod
    def stack(states: Sequence[Tensor]) -> Tensor:
        longest = max(state.shape[1] for state in states)
        return torch.cat([F.pad(state, (0, longest - state.shape[1]), value=PAD) for state in states])

    def room(self, state: Tensor) -> int:
        return self.config.max_len - state.shape[1]

    def check_state(self, transcript: Tensor, batch_size: int) -> None:
        if not isinstance(transcript, Tensor) or transcript.ndim != 2 or len(transcript) != batch_size:
            got = tuple(transcript.shape) if isinstance(transcript, Tensor) else type(transcript).__name__
            raise ValueError(
                f"the transcript is {got}, expected ({batch_size}, tokens so far); start from model.init_state(batch_size)"
            )

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """The last layer's output (B, T, D) for `tokens` (B, T)."""
        if cache is None:
            rotation, mask = self.rope(torch.arange(tokens.shape[1], device=tokens.device)), None
        else:
            positions, mask = cache.admit(tokens)
            rotation = self.rope(positions)  # (B, T, 1, K/2)
        x = self.embedding(tokens)
        for index, layer in enumerate(self.decoder):
            x = layer(x, rotation, past=cache and cache.layer(index), mask=mask)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(self.norm_head(hidden))

    def forward(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        whole = pack(torch.cat([state, tokens], dim=1))
        self.check_tokens(whole)
        hidden = self.hidden(whole)  # (B, C + T, D)
        history = (state != PAD).sum(1, keepdim=True)  # (B, 1)
        at = (history + torch.arange(tokens.shape[1], device=tokens.device)).clamp(max=hidden.shape[1] - 1)
        return self.logits(hidden[torch.arange(len(tokens))[:, None], at])

    def remember(self, tokens: Tensor, state: Tensor) -> Tensor:
        self.check_tokens(tokens)
        self.check_state(state, len(tokens))
        return pack(torch.cat([state, tokens], dim=1))

    def open(self, state: Tensor, capacity: int) -> Cache:
        self.check_state(state, len(state))
        room = min(state.shape[1] + capacity, self.config.max_len)
        cache = Cache(self.config, len(state), room, self.embedding.weight)
        if state.shape[1]:
            self.check_tokens(state)
            self.hidden(state, cache)
        return cache

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        one = self.read_one(tokens, cache)
        return self.logits(self.hidden(tokens, cache)) if one is None else one

    def forward_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        return self.head(self.last_of_dialogue(events, where, depth))

    def last_of_dialogue(self, events: Tensor, where: Tensor | None = None, depth: int | None = None) -> Tensor:
        """One causal pass over each whole dialogue: its events stand one after another in it.

        A transcript carries no gradient, so there is nothing for `depth` to cut.
        """
        B, N, T = events.shape
        flat = events.flatten(1)  # (B, N T)
        whole = pack(flat) if (flat != PAD).any() else flat[:, :1]
        self.check_tokens(whole)
        at = ((flat != PAD).cumsum(1) - 1).clamp(min=0)  # where each token went when the gaps closed
        hidden = self.hidden(whole)[torch.arange(B)[:, None], at].unflatten(1, (N, T))  # (B, N, T, D)
        return self.norm_head(hidden if where is None else hidden[where])


class WindowLM(DecoderLM):
    """The same decoder, of whose transcript only the last whole events of together at most `history` tokens are left.

        remember   transcript' = the last events of (transcript + tokens)

    What programs for chats do when a transcript grows too long. `history` 0 answers every message by itself; if not
    said, it is half of `max_len`, and the event to be answered has the other half.
    """

    def __init__(self, config: ModelConfig, history: int | None = None):
        super().__init__(config)
        self.history = config.max_len // 2 if history is None else history

    def remember(self, tokens: Tensor, state: Tensor) -> Tensor:
        whole = super().remember(tokens, state)
        to_go = (whole != PAD).sum(1, keepdim=True) - torch.arange(whole.shape[1], device=whole.device)  # tokens from here on
        kept = ((whole == BOS) & (to_go <= self.history)).cumsum(1) > 0
        return pack(whole.masked_fill(~kept, PAD))

    # Each event comes after another transcript: no single pass serves them all.
    forward_dialogue, last_of_dialogue = EventModel.forward_dialogue, EventModel.last_of_dialogue
