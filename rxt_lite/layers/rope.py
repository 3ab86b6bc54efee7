"""Rotary positions: a token at position p turns each pair of features by the angle p * freq.

    freq_i = base^(-2i / K)          pair i = features (2i, 2i + 1), base = 10,000
    (x1, x2) -> (x1 cos - x2 sin, x1 sin + x2 cos)

Two rotated vectors meet at an angle that depends only on how far apart they stand.
Source: Su et al., arXiv 2104.09864; interleaved pairs as in the RxT models.
"""

import torch
from torch import Tensor, nn

from rxt_lite.config import ModelConfig


class Rope(nn.Module):
    """Look up the rotation of each position.

    Shapes:
        positions (..., T)            whole numbers from 0 to max_len - 1
        returns   (..., T, 1, K/2)    complex numbers of length 1: cos + i sin, the same for all heads
    """

    def __init__(self, config: ModelConfig, base: float = 10_000.0):
        super().__init__()
        freq = base ** -(torch.arange(0, config.d_head, 2) / config.d_head)  # (K/2)
        angle = torch.outer(torch.arange(config.max_len), freq)  # (max_len, K/2)
        self.register_buffer("table", torch.polar(torch.ones_like(angle), angle), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return self.table[positions].unsqueeze(-2)


def rotate(x: Tensor, rotation: Tensor | None) -> Tensor:
    """Turn the pairs of `x` (..., T, H, K) by `rotation` (T, 1, K/2) or (B, T, 1, K/2); None leaves x alone."""
    if rotation is None:
        return x
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # there are no half-precision complex products
    turned = turn(wide.unflatten(-1, (-1, 2)), rotation).flatten(-2)
    return turned if wide is x else turned.to(x.dtype)


def turn(pairs: Tensor, rotation: Tensor) -> Tensor:
    """Pairs (..., K/2, 2) by `rotation` (..., K/2), the same for all or one for each, whatever its precision.

    A pair is a complex number and the turn a product: four times as fast on a CPU as sines and cosines apart.
    Compiled code wants them apart: there a `rotation` (..., K/2, 2) of cosines and sines is as good.
    """
    if rotation.is_complex():
        if not torch.compiler.is_compiling():  # it fuses real products, and knows no complex ones
            return torch.view_as_real(torch.view_as_complex(pairs) * rotation).to(pairs.dtype)
        rotation = torch.view_as_real(rotation)
    (x1, x2), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
    return torch.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], dim=-1).to(pairs.dtype)
