"""The surprise at tokens of a large vocabulary, without the table of all their logits.

    loss     = -sum_m log p_m[y_m],   p_m = softmax(W x_m + b)
    dloss/dz = p_m - onehot(y_m),     z_m = W x_m + b

For M targets and V words that table is the largest thing a training step makes, and plain code goes over it six or seven
times, each time in memory that the system has to hand out first. Here some rows are made at a time, always in the same
place, and their gradients taken at once: neither the table nor its gradient is ever whole, and a CPU keeps the rows in
its cache. The gradient of a gradient is not there. Source: as in Cut Your Losses, arXiv 2411.09009, in plain PyTorch.
"""

import torch
from torch import Tensor, nn

from rxt_lite.training.processes import cross_entropy, total

PART = {"cpu": 2**20}  # logits that are made at a time
ELSEWHERE = 2**24


def head_surprise(head: nn.Linear, x: Tensor, target: Tensor) -> Tensor:
    """This process's part of the mean surprise of `head`, in nats: x (M, D), target (M) -> scalar; 0 where there is no target.

    Up to PART logits, or where no gradient is asked for, it is `cross_entropy(head(x), target)`; else the same to rounding.
    """
    part = PART.get(x.device.type, ELSEWHERE)
    if len(x) * head.out_features <= part or not torch.is_grad_enabled():
        return cross_entropy(head(x), target)
    n = total(torch.tensor(len(target), device=x.device))
    return SumOfSurprise.apply(x, head.weight, head.bias, target, max(1, part // head.out_features)) / n


class SumOfSurprise(torch.autograd.Function):
    """Shapes: x (M, D), weight (V, D), bias (V), target (M) -> scalar; `rows` of the M are done at a time."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, rows: int) -> Tensor:
        device, (V, D) = x.device.type, weight.shape
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype  # of the products
        full = torch.float64 if low == torch.float64 else torch.float32  # of everything else
        asked, w, b = x.to(low), weight.mT.to(low), bias.to(low)
        dx, dw, db = torch.empty_like(asked), x.new_zeros(D, V, dtype=full), x.new_zeros(V, dtype=full)
        logits, some_dw, loss = asked.new_empty(rows, V), asked.new_empty(D, V), x.new_zeros((), dtype=full)
        shares = logits if low == full else logits.to(full)
        with torch.autocast(device, enabled=False):
            for some, y, some_dx in zip(asked.split(rows), target.unsqueeze(1).split(rows), dx.split(rows)):
                z, p = logits[: len(some)], shares[: len(some)]  # (rows, V), the same places again and again
                torch.addmm(b, some, w, out=z)
                if low != full:
                    p.copy_(z)
                top = p.amax(1, keepdim=True)
                loss += (top - p.gather(1, y)).sum()
                norm = p.sub_(top).exp_().sum(1, keepdim=True)
                loss += norm.log().sum()
                p.div_(norm).scatter_add_(1, y, -torch.ones_like(y, dtype=full))  # dloss/dz
                db += p.sum(0)
                if low != full:
                    z.copy_(p)
                torch.mm(z, w.mT, out=some_dx)
                dw += torch.mm(some.mT, z, out=some_dw)
        ctx.save_for_backward(dx.to(x.dtype), dw.mT.to(weight.dtype), db.to(bias.dtype))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple:
        return *(upstream * gradient for gradient in ctx.saved_tensors), None, None
