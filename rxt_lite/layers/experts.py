"""Experts: many small feed-forward layers, of which each token asks only a few.

    p   = softmax(W_r x)                                   over E experts: the router
    y   = sum over the k largest p_e of  w_e FF_e(x)       w_e = p_e / (sum of the k)
    out = y + FF_shared(x)                                 shared experts, where there are any, answer every token

With s > 1 shared experts theirs is a softmax-weighted mean. `weighted_shared_experts` takes k/(k+s) of y and
s/(k+s) of the shared part. A router that always asks the same few wastes the rest, so training adds

    balance = E * sum_e f_e P_e         f_e: share of all choices that fell on e, P_e: mean of p_e over tokens

which is 1 when the load is even and grows with every token that crowds (Fedus et al., arXiv 2101.03961, eq. 4).
The RxT models use the mean of p_e over the tokens *that chose e* instead; the load then cancels out of it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import ModelConfig
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.linear import LayerwiseLinear, Linear


class Routing(NamedTuple):
    """What a router decided for N tokens: p (N, E), the chosen experts (N, k), their weights (N, k)."""

    probabilities: Tensor
    chosen: Tensor
    weights: Tensor


class Router(nn.Module):
    """Shapes: x (N, D) -> Routing. No bias."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.k = config.experts_per_token
        self.to_scores = Linear(config.d_model, config.n_experts, bias=False)

    def forward(self, x: Tensor) -> Routing:
        scores = self.to_scores(x)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))  # (N, E)
        best, chosen = probabilities.topk(self.k, dim=-1)
        return Routing(probabilities, chosen, best / best.sum(-1, keepdim=True))


class Experts(nn.Module):
    """A drop-in for `FeedForward`, with E of them inside.

    Shapes: x (B, T, D) -> (B, T, D). Hidden width d_expert; biases as `expert_bias` says: two in each expert
    ("local"), one vector (D) added to their weighted sum ("global"), none ("off").
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        E, D, width, local = config.n_experts, config.d_model, config.d_expert or config.d_ff, config.expert_bias == "local"
        k, s = config.experts_per_token, config.shared_experts
        self.router = Router(config)
        self.to_hidden = LayerwiseLinear(E, D, 2 * width, bias=local)
        self.to_out = LayerwiseLinear(E, width, D, bias=local)
        self.bias = nn.Parameter(torch.zeros(D)) if config.expert_bias == "global" else None
        self.shared = nn.ModuleList(FeedForward(config, width) for _ in range(s))
        self.to_share = Linear(D, s, bias=False) if s > 1 else None
        self.share = (k / (k + s), s / (k + s)) if config.weighted_shared_experts else (1.0, 1.0)

    def ask_chosen(self, x: Tensor, routing: Routing) -> Tensor:
        """y (N, D): tokens sorted by the expert they chose, one product per expert, back in their order. One token needs no order."""
        if len(x) == 1:
            of_each = zip(routing.chosen[0].tolist(), routing.weights.mT)  # (1) each
            y = sum(weight * self.ask_one(expert, x) for expert, weight in of_each)
            return y if self.bias is None else y + self.bias
        k = routing.chosen.shape[1]
        order = routing.chosen.flatten().argsort(stable=True)  # (N k) choices, those of expert 0 first
        load = routing.chosen.flatten().bincount(minlength=len(self.to_hidden.weight)).tolist()
        answers = []
        for expert, asked in enumerate(x[order // k].split(load)):  # (n_e, D)
            if len(asked):
                answers.append(self.ask_one(expert, asked))
        weighted = torch.cat(answers) * routing.weights.flatten()[order, None]
        y = torch.zeros_like(x, dtype=weighted.dtype).index_add(0, order // k, weighted)
        return y if self.bias is None else y + self.bias

    def ask_one(self, expert: int, x: Tensor) -> Tensor:
        linear, gate = self.to_hidden.one(expert, x).chunk(2, dim=-1)
        return self.to_out.one(expert, linear * F.silu(gate))

    def ask_shared(self, x: Tensor) -> Tensor:
        answers = torch.stack([expert(x) for expert in self.shared], dim=-1)  # (N, D, s)
        return answers.squeeze(-1) if self.to_share is None else (answers * self.to_share(x).softmax(-1).unsqueeze(-2)).sum(-1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)  # (N, D)
        y = self.share[0] * self.ask_chosen(flat, self.router(flat))
        if self.shared:
            y = y + self.share[1] * self.ask_shared(flat)
        return y.to(x.dtype).view_as(x)


@contextmanager
def watch_routers(model: nn.Module) -> Iterator[list[Routing]]:
    """Inside the block, every decision of a router in `model` joins the list, layer after layer."""
    seen: list[Routing] = []
    with ExitStack() as hooks:
        for router in (module for module in model.modules() if isinstance(module, Router)):
            hooks.enter_context(router.register_forward_hook(lambda _, __, routing: seen.append(routing)))
        yield seen


def load_of(routing: Routing, is_token: Tensor) -> Tensor:
    """How many choices fell on each expert, (E); `is_token` (N) is False where a token is padding."""
    return torch.bincount(routing.chosen[is_token].flatten(), minlength=routing.probabilities.shape[1])


def balance_loss(routings: list[Routing], is_token: Tensor, total: Callable[[Tensor], Tensor] = lambda count: count) -> Tensor:
    """Mean of the balance over the layers, a scalar of at least about 1; padding is never counted.

    `total` sums a count over all processes that share a batch; what they return then adds up to the balance of all.
    """
    losses = []
    for routing in routings:
        load = total(load_of(routing, is_token))  # (E)
        mean = routing.probabilities[is_token].sum(0) / total(is_token.sum())  # (E)
        losses.append(len(load) * (load / load.sum() * mean).sum())
    return torch.stack(losses).mean()
