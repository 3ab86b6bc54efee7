"""What may be asked of a memory bank besides its task: to use its slots, to look at few of them, to hold little, to write seldom.

With w (..., N) the weights of reading, each summing to 1 over N, a mean over all reads, and H(p) = - sum p ln p:

    utilisation         H(mean w) / ln N                     1: all slots are read alike often; 0: always the same one
    read_entropy        mean H(w) / ln N                     0: every read looks at one slot; 1: every read looks at all
    mutual_information  utilisation - read_entropy           how much it depends on the moment which slot is read
    pressure            mean strength                        the share of the bank that is occupied, faded slots counting less
    writing             mean over steps of sum_h g_h         slots rewritten a step

High utilisation alone proves nothing: a bank that always reads all slots alike has utilisation 1 too, and mutual information 0.
Each loss is to be made *small*: `utilisation_loss` is minus the utilisation. (The public description of MemNet adds plus the
entropy of the mean to its loss, which asks for the opposite; its code cuts the gradient off.) Reading weights must come with
their gradient, as `MemNet.forward_sequence` and `forward_events` return them.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from rxt_lite.models.memnet import MemNet, Steps


def entropy(shares: Tensor) -> Tensor:
    """- sum of p ln p over the last axis, in nats; a share of 0 adds nothing and has no gradient: (..., N) -> (...)."""
    return -torch.where(shares > 0, shares * shares.clamp(min=1e-30).log(), 0.0).sum(-1)


def utilisation(weights: Tensor) -> Tensor:
    """Entropy of the mean of `weights` (..., N) over that of using all slots alike: a scalar from 0 to 1."""
    return entropy(weights.flatten(0, -2).mean(0)) / math.log(weights.shape[-1])


def read_entropy(weights: Tensor) -> Tensor:
    """Mean entropy of single `weights` (..., N), on the same scale."""
    return entropy(weights).mean() / math.log(weights.shape[-1])


def mutual_information(weights: Tensor) -> Tensor:
    """Between the moment and the slot that is read, on the same scale: 0 where all moments read alike."""
    return utilisation(weights) - read_entropy(weights)


def utilisation_loss(steps: Steps) -> Tensor:
    return -utilisation(steps.read)


def entropy_loss(steps: Steps) -> Tensor:
    return read_entropy(steps.read)


def mutual_information_loss(steps: Steps) -> Tensor:
    return -mutual_information(steps.read)


def pressure_loss(steps: Steps) -> Tensor:
    """Mean strength of all slots: asks for closed gates, and for decay."""
    return steps.before.strength.mean()


def write_cost(steps: Steps) -> Tensor:
    """How many slots a step rewrites, mean. Cosines do not see a slot's length, so a gate may shrink under this cost
    without anything being forgotten: its size is then no count of writes."""
    return steps.gate.sum(-1).mean()


MEMORY_LOSSES = {"utilisation": utilisation_loss, "read_entropy": entropy_loss, "mutual_information": mutual_information_loss,
                 "pressure": pressure_loss, "write_cost": write_cost}


def step_loss(model: MemNet, tokens: Tensor, targets: Tensor, weights: Mapping[str, float] | None = None, memory: bool = True) -> Tensor:
    """Mean surprise at `targets` (B, M), -1 where nothing is asked, in nats, plus MEMORY_LOSSES by their weights: a scalar."""
    steps = model.forward_sequence(tokens, memory=memory)
    return F.cross_entropy(steps.logits.flatten(0, 2).float(), targets.flatten(), ignore_index=-1) + memory_loss(steps, weights or {})


def memory_loss(steps: Steps, weights: Mapping[str, float]) -> Tensor | float:
    """The sum of MEMORY_LOSSES, each times its weight."""
    return sum(weight * MEMORY_LOSSES[name](steps) for name, weight in weights.items())
