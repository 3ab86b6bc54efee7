"""The feed-forward layer: each token by itself, through a gated hidden layer.

    FF(x) = W_out (l * SiLU(g)),   (l | g) = W_in x          SwiGLU, Shazeer, arXiv 2002.05202
"""

import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.linear import Linear


class FeedForward(nn.Module):
    """Shapes: x (..., D) -> (..., D). Both maps have a bias; hidden width F = d_ff unless `width` says otherwise."""

    def __init__(self, config: ModelConfig, width: int | None = None):
        super().__init__()
        width = width or config.d_ff
        self.to_hidden = Linear(config.d_model, 2 * width)
        self.to_out = Linear(width, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        linear, gate = self.to_hidden(x).chunk(2, dim=-1)  # (..., F) each
        return self.to_out(linear * F.silu(gate))
