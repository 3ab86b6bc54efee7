"""What a model is asked to get right: the tokens of the answers, each event answered from the memory of those before.

    loss = - mean over answer tokens y of log p(y | tokens of the event before y, state after the earlier events)

`[EOS]` is a target, `[A]` and the query are not. The gradient flows back through every update of the memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rxt_lite.data.batches import Batch
from rxt_lite.models.base import EventModel


def answer_logits(model: EventModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (M, V) for the M answer tokens of the batch, and the tokens themselves (M)."""
    before = batch.is_answer[:, :, 1:]  # a token is predicted one place earlier
    before = torch.cat([before, torch.zeros_like(before[:, :, :1])], dim=2)  # (B, N, T)
    return model.forward_dialogue(batch.tokens, before), batch.tokens[batch.is_answer]


def answer_loss(model: EventModel, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of the answer tokens, in nats: a scalar."""
    logits, target = answer_logits(model, batch)
    return F.cross_entropy(logits.float(), target)


def whole_answers_right(model: EventModel, batch: Batch) -> Tensor:
    """True where every token of the answer is the most likely one, given the true tokens before it: (B, N)."""
    logits, target = answer_logits(model, batch)
    wrong = torch.zeros_like(batch.is_answer)
    wrong[batch.is_answer] = logits.argmax(-1) != target
    return ~wrong.any(-1)
