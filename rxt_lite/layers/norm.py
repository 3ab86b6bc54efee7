"""RMSNorm: bring every vector to the same length, then scale each feature.

    N(x) = x / sqrt(mean(x^2) + eps) * w          eps = 2^-23, as torch.nn.RMSNorm for float32

Source: Zhang and Sennrich, arXiv 1910.07467. Written out because torch's own takes longer on a CPU, where
`F.rms_norm` is not fused. The mean square comes from the norm, |x|^2 / D: one pass, and one operation less.
"""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """One scale for all vectors, or one for each of L layers.

    Shapes:
        x       (..., D); where `n_layers` is given (L, B, N, D), or (L, B, N, H, D) with `between=3` axes
        returns the same
    """

    eps = 2.0**-23  # of the mean square

    def __init__(self, d_model: int, n_layers: int | None = None, between: int = 2):
        super().__init__()
        self.register_buffer("tiny", torch.tensor(self.eps), persistent=False)  # a Python number would be copied at every call
        self.weight = nn.Parameter(torch.ones(d_model) if n_layers is None else torch.ones(n_layers, *[1] * between, d_model))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # squares need its range under autocast
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # (..., 1)
        scale = torch.addcmul(self.tiny, norm, norm, value=1 / x.shape[-1]).rsqrt()
        device = x.device.type  # under autocast the maps that follow want the low precision: round once, not in each of them
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return (wide * scale * self.weight).to(dtype)
