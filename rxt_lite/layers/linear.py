"""Linear maps, their weights stored input by input, and one map for all layers at once.

    y = x W^T + b

W has the shape (out, in) of every other library and the same name and start as in `nn.Linear`; in memory it lies as W^T.
A product with a single row, as for every word said, then reads it from one end to the other. Stored output by output
that took up to four times as long, once a model's weights together no longer fit the caches near the processor.

The memory update treats the L banks of slots alike but with weights of their own:

    y[l] = x[l] W[l]^T + b[l]

Written as a loop this is L small products; with the layers stacked it is one batched product. Experts are
stacked the same way, and asked one at a time, since each has its own tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def by_input(weight: Tensor) -> nn.Parameter:
    """The same `weight` (..., out, in), stored as its transpose."""
    return nn.Parameter(weight.detach().mT.contiguous().mT)


class Linear(nn.Linear):
    """`nn.Linear` with its weight stored by input. Shapes: x (..., n_in) -> (..., n_out)."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.weight = by_input(self.weight)


class LayerwiseLinear(nn.Module):
    """`nn.Linear` for each of L layers.

    Shapes:
        x       (L, B, N, n_in)    N: slots or tokens
        returns (L, B, N, n_out)
    """

    def __init__(self, n_layers: int, n_in: int, n_out: int, bias: bool = True):
        super().__init__()
        bound = 1 / math.sqrt(n_in)  # the initialisation of nn.Linear
        self.weight = by_input(torch.empty(n_layers, n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_layers, 1, n_out).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        flat, weight = x.flatten(1, 2), self.weight.transpose(1, 2)  # (L, B N, n_in), (L, n_in, n_out)
        y = torch.bmm(flat, weight) if self.bias is None else torch.baddbmm(self.bias, flat, weight)
        return y.unflatten(1, x.shape[1:3])  # (L, B, N, n_out)

    def one(self, layer: int, x: Tensor) -> Tensor:
        """The map of a single layer: x (N, n_in) -> (N, n_out)."""
        return F.linear(x, self.weight[layer], None if self.bias is None else self.bias[layer, 0])
