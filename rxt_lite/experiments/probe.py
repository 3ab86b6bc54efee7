"""Linear probes: can the value of a fact be read off the slots by a linear map, and off nothing else?

A probe is learnt on some dialogues and scored on others, beside two controls: the same slots with shuffled values,
and slots of a memory that was emptied before its last event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from rxt_lite.data.batches import make_batch
from rxt_lite.data.dialogues import Dialogue
from rxt_lite.data.world import ATTRIBUTES, facts_told
from rxt_lite.experiments.intervals import wilson
from rxt_lite.models import RxT


@dataclass(frozen=True)
class Snapshots:
    """Memories of many dialogues, each at the last moment at which it held one fact of an attribute.

    slots, reset  (M, L, S * D): the memory then; and the one that an empty memory becomes by that last event alone
    values        (M): place of the value in the list of the attribute's values
    """

    slots: Tensor
    reset: Tensor
    values: Tensor


@torch.no_grad()
def snapshots(model: RxT, dialogues: Sequence[Dialogue], tokenizer: Tokenizer, batch_size: int = 256) -> dict[str, Snapshots]:
    """Snapshots by attribute. The moment is the last event until which the dialogue has told exactly one such fact,
    provided that this event itself does not show the value. Answers are the right ones, not the model's own."""
    found = {name: [] for name in ATTRIBUTES}
    for first in range(0, len(dialogues), batch_size):
        some = dialogues[first : first + batch_size]
        tokens = make_batch(some, tokenizer, max_event_len=model.config.max_len).tokens.to(model.device)  # (B, N, T)
        moments = [(b, *moment) for b, dialogue in enumerate(some) for moment in moments_of(dialogue)]
        state, after = model.init_state(len(some)), []
        for event in tokens.unbind(1):
            state = model.remember(event, state)
            after.append(state)
        if not moments:
            continue
        b, n = (torch.tensor(column, device=model.device) for column in list(zip(*moments))[:2])
        slots = torch.stack(after)[n, :, b].flatten(2)  # (M, L, S D)
        reset = model.remember(tokens[b, n], model.init_state(len(b))).transpose(0, 1).flatten(2)
        for m, (_, _, attribute, value) in enumerate(moments):
            found[attribute].append((slots[m], reset[m], ATTRIBUTES[attribute].values.index(value)))
    return {name: Snapshots(*(torch.stack(part) for part in list(zip(*of))[:2]), torch.tensor([v for *_, v in of]))
            for name, of in found.items() if of}


def moments_of(dialogue: Dialogue) -> list[tuple[int, str, str]]:
    """(event, attribute, value): see `snapshots`."""
    told = [(n, *fact) for n, event in enumerate(dialogue.events) for fact in facts_told(event.query)]
    moments = []
    for name in ATTRIBUTES:
        of = [(n, value) for n, attribute, _, value in told if attribute == name]
        if of:
            (start, value), end = of[0], of[1][0] if len(of) > 1 else len(dialogue.events)
            quiet = [n for n in range(start + 1, end) if value not in f"{dialogue.events[n].query} {dialogue.events[n].answer}"]
            moments += [(quiet[-1], name, value)] if quiet else []
    return moments


def linear_probe(x: Tensor, y: Tensor, options: int, ridge: float = 0.01):
    """Ridge regression from `x` (M, F) to one-hot `y` (M): a function from (M', F) to guesses (M').

    Features are centred and divided by the root mean square of all of them; the penalty is `ridge` times M.
    Closed form, through the smaller of the two Gram matrices.
    """
    mean = x.mean(0)
    scale = (x - mean).pow(2).mean().sqrt().clamp(min=1e-12)
    x, target = ((x - mean) / scale).double(), F.one_hot(y, options).double()
    bias, penalty = target.mean(0), ridge * len(x)
    if len(x) < x.shape[1]:
        weight = x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype), target - bias)
    else:
        weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (target - bias))
    return lambda new: (((new - mean) / scale).double() @ weight + bias).argmax(-1)


def probe_rows(train: dict[str, Snapshots], test: dict[str, Snapshots], *, ridge: float = 0.01, seed: int = 0) -> list[dict]:
    """Rows {"attribute", "layer", "arm", "accuracy", "low", "high", "n", "options"}: what a linear map reads off the slots.

    arm         slots
                shuffled_labels  learnt from the same slots with the values of other dialogues: what fitting alone gives
                memory_reset     slots of a memory emptied before the last event, which does not show the value
    low, high   95 % Wilson interval over the n test dialogues
    options     values of the attribute; 1 / options is chance
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    for attribute in [name for name in train if name in test]:
        learn, score, options = train[attribute], test[attribute], len(ATTRIBUTES[attribute].values)
        mixed = learn.values[torch.randperm(len(learn.values), generator=generator)]
        arms = {"slots": ("slots", learn.values), "shuffled_labels": ("slots", mixed), "memory_reset": ("reset", learn.values)}
        for layer in range(learn.slots.shape[1]):
            for arm, (which, values) in arms.items():
                guess = linear_probe(getattr(learn, which)[:, layer], values, options, ridge)
                right = int((guess(getattr(score, which)[:, layer]) == score.values).sum())
                low, high = wilson(right, len(score.values))
                rows.append({"attribute": attribute, "layer": layer, "arm": arm, "accuracy": right / len(score.values), "low": low,
                             "high": high, "n": len(score.values), "options": options})
    return rows
