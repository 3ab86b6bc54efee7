"""Muon for the matrices inside a model, AdamW for everything else.

    M  = 0.95 M + 0.05 G                        momentum of the gradient G of one matrix (m, n)
    U  = orthogonal(0.05 G + 0.95 M)            its nearest matrix with all singular values near 1
    W  = (1 - lr wd) W - lr 0.2 sqrt(max(m, n)) U

Adam scales every number by itself; Muon makes every *direction* of a matrix move alike, also those of which the
gradient shows little. Whose pet it was is such a direction: the first lesson takes less than half of AdamW's steps
(the book's log has both curves). Embeddings, the head, slots, norms and biases are no maps from features to features
and stay with AdamW.

Sources: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the factor 0.2 sqrt(max(m, n)), which gives an
update the size of AdamW's: Liu et al., arXiv 2502.16982. `torch.optim.Muon` refuses stacks of matrices, such as our
memory attention has, and computes in bfloat16, where two processes would no longer learn what one learns; a test holds
ours to it.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rxt_lite.layers.linear import LayerwiseLinear

MOMENTUM = 0.95
MATRIX_RATE = 3.0  # Muon's learning rate over AdamW's


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Nearly U V^T of the singular value decomposition x = U diag(s) V^T, by Newton-Schulz: (..., m, n) -> (..., m, n).

    Each step maps every singular value s to a s + b s^3 + c s^5, which drives them all towards 1 (into 0.7 to 1.2).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    if x.shape[-2] > x.shape[-1]:
        return orthogonal(x.mT, steps).mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT  # (..., m, m)
        x = a * x + (b * square + c * square @ square) @ x
    return x


class Muon(torch.optim.Optimizer):
    """For matrices (m, n) and stacks of them (L, m, n), each matrix of a stack by itself."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
                update = orthogonal(p.grad.lerp(momentum, MOMENTUM))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * math.sqrt(max(p.shape[-2:])) * group["lr"])


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear maps inside `model`, but for its head and maps to a single number."""
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear | LayerwiseLinear)]
    return [part.weight for name, part in linear if name != "head" and part.weight.shape[-2] > 1]


class MatrixOptimizer:
    """Both optimisers as one: what learns of `model` and of the parameters `more`, which are AdamW's."""

    def __init__(self, model: nn.Module, more: Sequence[nn.Parameter], lr: float, weight_decay: float):
        inside = [p for p in matrices(model) if p.requires_grad]
        known = {id(p) for p in inside}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known] + list(more)
        how = {"lr": lr, "weight_decay": weight_decay}
        self.adam = torch.optim.AdamW(others, **how) if others else None
        self.muon = Muon(inside, **how) if inside else None

    def parts(self) -> list[torch.optim.Optimizer]:
        return [part for part in (self.adam, self.muon) if part is not None]

    def zero_grad(self) -> None:
        for part in self.parts():
            part.zero_grad()

    def step(self, lr: float) -> None:
        """One step; `lr` is AdamW's, Muon's is MATRIX_RATE times as large."""
        for part in self.parts():
            for group in part.param_groups:
                group["lr"] = lr * (MATRIX_RATE if part is self.muon else 1)
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts()]}

    def load_state_dict(self, state: dict) -> None:
        for part, saved in zip(self.parts(), state["parts"]):
            part.load_state_dict(saved)
