"""What a model is asked to get right: the tokens of the answers, each event answered from the memory of those before.

    loss = - mean over answer tokens y of log p(y | tokens of the event before y, state after the earlier events)

`[EOS]` is a target, `[A]` and the query are not. The gradient flows back through every update of the memory, or
through the last `depth` of them. Padding is never a target. The losses of the stages before stand in `pretraining.py`.
"""

import torch
from torch import Tensor

from rxt_lite.config import BOS, EOS, PAD, A
from rxt_lite.data.batches import Batch
from rxt_lite.models.base import EventModel
from rxt_lite.training.processes import cross_entropy
from rxt_lite.training.surprise import head_surprise

TARGETS = ("text", "answer_words", "answer", "answer_and_frame")


def targets_of(batch: Batch, which: str) -> Tensor:
    """True where a token is to be predicted, (B, N, T).

    text              every token but [BOS]: a language model's
    answer_words      the answer without its [EOS]: the published interaction tuning, after which nobody knows where to stop
    answer            the answer and its [EOS]: what a model has to say itself
    answer_and_frame  [A] too: the published memory-aware training, whose scores count two tokens that are nearly free
    """
    if which == "text":
        return (batch.tokens != PAD) & (batch.tokens != BOS)
    if which == "answer_words":
        return batch.is_answer & (batch.tokens != EOS)
    if which == "answer":
        return batch.is_answer
    if which == "answer_and_frame":
        return batch.is_answer | (batch.tokens == A)
    raise ValueError(f"targets={which!r} is not known; choose one of {', '.join(TARGETS)}")


def place_before(is_target: Tensor) -> Tensor:
    """True one place earlier (..., T): where the logits of the targets stand."""
    return torch.cat([is_target[..., 1:], torch.zeros_like(is_target[..., :1])], dim=-1)


def answer_logits(model: EventModel, batch: Batch, *, targets: str = "answer") -> tuple[Tensor, Tensor]:
    """Logits (M, V) for the M targets of the batch, and the tokens themselves (M)."""
    is_target = targets_of(batch, targets)
    return model.forward_dialogue(batch.tokens, place_before(is_target)), batch.tokens[is_target]


def answer_loss(model: EventModel, batch: Batch, *, targets: str = "answer", depth: int | None = None) -> Tensor:
    """Mean negative log-likelihood of the answer tokens, in nats: a scalar.

    depth   how many updates of the memory an answer's gradient reaches back at most: 1 as published, None for all
    """
    is_target = targets_of(batch, targets)
    where, target = place_before(is_target), batch.tokens[is_target]
    x = model.last_of_dialogue(batch.tokens, where, depth)
    if x is None:
        return cross_entropy(model.forward_dialogue(batch.tokens, where, depth), target)
    return head_surprise(model.head, x, target)


def whole_answers_right(model: EventModel, batch: Batch) -> Tensor:
    """True where every token of the answer is the most likely one, given the true tokens before it: (B, N)."""
    logits, target = answer_logits(model, batch)
    wrong = torch.zeros_like(batch.is_answer)
    wrong[batch.is_answer] = logits.argmax(-1) != target
    return ~wrong.any(-1)
