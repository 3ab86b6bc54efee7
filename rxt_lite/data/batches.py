"""Dialogues as tensors: what a training step reads.

    tokens     (B, N, T)   event n of dialogue b, [BOS][Q]query[A]answer[EOS], padded on the right
    is_answer  (B, N, T)   True on the answer and its [EOS]: the tokens that a model has to say itself
"""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rxt_lite.config import PAD, A
from rxt_lite.data.dialogues import Dialogue
from rxt_lite.data.tokenizer import encode_event


@dataclass(frozen=True)
class Batch:
    """B dialogues of up to N events of up to T tokens; the shorter ones are filled with [PAD].

    tokens     (B, N, T) int64
    is_answer  (B, N, T) bool; these tokens are the *targets* of the answer loss
    """

    tokens: Tensor
    is_answer: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.tokens.to(device), self.is_answer.to(device))


def fits(dialogue: Dialogue, tokenizer: Tokenizer, max_event_len: int) -> bool:
    """Is every event of this dialogue at most `max_event_len` tokens long? For leaving out the odd real story."""
    return all(len(encode_event(tokenizer, event.query, event.answer)) <= max_event_len for event in dialogue.events)


def make_batch(dialogues: Sequence[Dialogue], tokenizer: Tokenizer, *, max_event_len: int) -> Batch:
    """T is the longest event of these dialogues. Raises ValueError when one is longer than `max_event_len` tokens."""
    if not dialogues:
        raise ValueError("a batch needs at least one dialogue, got none")
    ids = [[encode_event(tokenizer, event.query, event.answer) for event in dialogue.events] for dialogue in dialogues]
    for dialogue, events in zip(dialogues, ids):
        for event, tokens in zip(dialogue.events, events):
            if len(tokens) > max_event_len:
                raise ValueError(f"the event that begins with {event.query[:40]!r} has {len(tokens)} tokens, "
                                 f"but an event may have at most max_event_len={max_event_len}")
    shape = len(ids), max(len(events) for events in ids), max(len(tokens) for events in ids for tokens in events)
    tokens = torch.full(shape, PAD)                                      # (B, N, T)
    is_answer = torch.zeros(shape, dtype=torch.bool)                     # (B, N, T)
    for b, events in enumerate(ids):
        for n, event in enumerate(events):
            tokens[b, n, :len(event)] = torch.tensor(event)
            is_answer[b, n, event.index(A) + 1:len(event)] = True
    return Batch(tokens, is_answer)
