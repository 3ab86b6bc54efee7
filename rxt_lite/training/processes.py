"""Several processes, one run: `torchrun` starts them, and each takes its share of the rows of every batch.

    mean over a batch = sum over processes of  (sum over own rows) / (how many values there are in all)

So a loss is written as parts that add up over the processes, its gradients add up too, and two processes do what
one does with the whole batch. Alone, nothing here changes anything.

    torchrun --nproc-per-node 2 -m rxt_lite.cli train RUN
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import PAD
from rxt_lite.data.batches import Batch


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that `torchrun` has started, each with a GPU of its own where there are any; else do nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=2))  # a long watch keeps the others waiting
    try:
        yield
    finally:
        dist.destroy_process_group()


def how_many() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Which of the processes this is, from 0. The first one writes files and shows the progress."""
    return dist.get_rank() if how_many() > 1 else 0


def wait_for_all() -> None:
    if how_many() > 1:
        dist.barrier()


def total(value: Tensor) -> Tensor:
    """The sum of `value` over all processes; carries no gradient."""
    if how_many() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def mean(values: Tensor) -> Tensor:
    """This process's part of the mean of all values, a scalar; 0 where there is none."""
    n = total(torch.tensor(values.numel(), device=values.device))
    return values.sum() / n.clamp(min=1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """This process's part of the mean surprise, in nats: logits (M, V), target (M) -> scalar; 0 where there is no target."""
    if how_many() == 1 and len(target):
        return F.cross_entropy(logits.float(), target)
    return mean(F.cross_entropy(logits.float(), target, reduction="none"))


def my_share(batch: Batch) -> Batch:
    """Every n-th row of the batch. A process that gets none takes a dialogue of padding, which no loss counts."""
    if how_many() == 1:
        return batch
    mine = slice(number(), None, how_many())
    if number() < len(batch.tokens):
        return Batch(batch.tokens[mine], batch.is_answer[mine])
    return Batch(torch.full_like(batch.tokens[:1], PAD), torch.zeros_like(batch.is_answer[:1]))


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of all their gradients."""
    if how_many() == 1:
        return
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    learned = [p for p, n in zip(parameters, total(has).tolist()) if n]
    flat = total(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learned]))
    for p, grad in zip(learned, flat.split([p.numel() for p in learned])):
        p.grad = grad.view_as(p)
