"""Experts against a loop over tokens, and a balance that really depends on the load."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rxt_lite.config import PAD, ModelConfig
from rxt_lite.layers.experts import Experts, Router, Routing, balance_loss, load_of, watch_routers
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.models import RxT

B, T, D, E, K, W = 2, 7, 24, 5, 2, 10
CONFIG = ModelConfig(d_model=D, n_heads=4, n_experts=E, experts_per_token=K, d_expert=W, d_ff=20, max_len=16)
OPTIONS = [
    {}, {"expert_bias": "global"}, {"expert_bias": "off"}, {"experts_per_token": 1}, {"experts_per_token": E},
    {"shared_experts": 1}, {"shared_experts": 3}, {"shared_experts": 2, "weighted_shared_experts": True, "expert_bias": "global"},
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def one_token(experts: Experts, config: ModelConfig, x):
    """The equations of the docstring for a single token (D)."""
    p = (experts.router.to_scores.weight @ x).softmax(-1)
    best = sorted(range(E), key=lambda e: -p[e])[: config.experts_per_token]
    y = torch.zeros_like(x)
    for e in best:
        hidden = experts.to_hidden.weight[e] @ x + (experts.to_hidden.bias[e, 0] if config.expert_bias == "local" else 0)
        out = experts.to_out.weight[e] @ (hidden[:W] * F.silu(hidden[W:]))
        y += p[e] / sum(p[i] for i in best) * (out + (experts.to_out.bias[e, 0] if config.expert_bias == "local" else 0))
    y = y + (experts.bias if config.expert_bias == "global" else 0)
    s, k = config.shared_experts, config.experts_per_token
    if s:
        shares = (experts.to_share.weight @ x).softmax(-1) if s > 1 else [1.0]
        shared = sum(share * f(x) for share, f in zip(shares, experts.shared))
        y = y * k / (k + s) + shared * s / (k + s) if config.weighted_shared_experts else y + shared
    return y


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_experts_equal_a_loop_over_tokens(options):
    config = replace(CONFIG, **options)
    experts = Experts(config).double()
    for p in experts.parameters():
        p.normal_(std=0.5)
    for x in (torch.randn(B, T, D).double(), torch.randn(1, 1, D).double()):  # a single token goes its own way
        torch.testing.assert_close(experts(x), torch.stack([one_token(experts, config, t) for t in x.flatten(0, 1)]).view_as(x))


@torch.no_grad()
def test_one_expert_is_a_dense_layer():
    config = replace(CONFIG, n_experts=1, experts_per_token=1)
    experts, dense = Experts(config), FeedForward(config, W)
    for name in ("to_hidden", "to_out"):
        getattr(dense, name).weight.copy_(getattr(experts, name).weight[0])
        getattr(dense, name).bias.copy_(getattr(experts, name).bias[0, 0])
    x = torch.randn(B, T, D)
    torch.testing.assert_close(experts(x), dense(x))


def test_every_part_of_the_experts_learns():
    experts = Experts(replace(CONFIG, shared_experts=2, experts_per_token=E))
    for x in (torch.randn(B, T, D), torch.randn(1, 1, D)):
        experts.zero_grad()
        experts(x).pow(2).sum().backward()
        assert [name for name, p in experts.named_parameters() if p.grad is None or not p.grad.any()] == []


def routing(chosen, mass=0.9):
    """Top-1 routing of tokens to `chosen`, each with probability `mass`."""
    p = torch.full((len(chosen), E), (1 - mass) / (E - 1)).scatter(1, chosen[:, None], mass)
    return Routing(p, chosen[:, None], torch.ones(len(chosen), 1))


def published(r: Routing):
    """The balance of the RxT models: its load n_e cancels."""
    n, k = len(r.chosen), r.chosen.shape[1]
    total = 0.0
    for e in range(E):
        chose = (r.chosen == e).any(1)
        if chose.any():
            total += chose.sum() / (n * k) * r.probabilities[chose, e].mean()
    return E * total


def test_balance_is_one_for_an_even_load_and_large_for_a_crowded_expert_where_the_published_one_sees_no_difference():
    everyone, even, crowded = torch.ones(20, dtype=torch.bool), routing(torch.arange(20) % E), routing(torch.zeros(20, dtype=torch.long))
    assert balance_loss([even], everyone).item() == pytest.approx(1.0)
    assert balance_loss([crowded], everyone).item() == pytest.approx(E * 0.9)
    assert published(even).item() == pytest.approx(published(crowded).item()) == pytest.approx(E * 0.9)


def test_balance_training_spreads_the_load():
    router, x = Router(replace(CONFIG, experts_per_token=1)), torch.randn(256, D)
    with torch.no_grad():
        router.to_scores.weight[0] += 0.5 * x.mean(0) + x[:40].mean(0)  # a favourite to begin with
    everyone = torch.ones(256, dtype=torch.bool)
    before = load_of(router(x), everyone).max()
    optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        balance_loss([router(x)], everyone).backward()
        optimizer.step()
    after = load_of(router(x), everyone)
    assert after.max() < before and after.max() < 2 * 256 / E and after.min() > 0


@torch.no_grad()
def test_watching_a_model_sees_every_layer_and_padding_never_counts():
    model = RxT(replace(CONFIG, n_layers=3)).eval()
    tokens = torch.randint(7, 256, (B, T))
    tokens[1, 4:] = PAD
    with watch_routers(model) as seen:
        model(tokens, model.init_state(B))
    assert len(seen) == 3 and seen[0].probabilities.shape == (B * T, E) and seen[0].chosen.shape == (B * T, K)
    is_token = (tokens != PAD).flatten()
    assert load_of(seen[0], is_token).sum() == 11 * K
    before = balance_loss(seen, is_token)
    for r in seen:
        r.probabilities[~is_token] = 0.7
    assert balance_loss(seen, is_token) == before
    model(tokens, model.init_state(B))
    assert len(seen) == 3, "outside the block nobody listens"
