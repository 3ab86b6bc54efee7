"""The short way to read one token more says what the long way says, for every kind of model, and stands aside where it cannot."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from rxt_lite.config import PAD, PAPER, ModelConfig
from rxt_lite.layers.linear import LayerwiseLinear, Linear
from rxt_lite.models import DecoderLM, RxT
from rxt_lite.models.one_token import ReadsOneMore

SMALL = ModelConfig(vocab_size=40, d_model=16, n_heads=4, n_layers=3, n_slots=5, d_ff=12, max_len=24)
KINDS = {
    "plain": SMALL,
    "grouped queries": replace(SMALL, self_heads=(4, 2), cross_heads=(4, 1)),
    "fewer queries": replace(SMALL, self_heads=(2, 4), cross_heads=(1, 4)),
    "experts": replace(SMALL, n_experts=3, experts_per_token=2, d_expert=6, shared_experts=1),
    "layers without memory": replace(SMALL, stateless_before=1, stateless_after=2),
    "paper": replace(SMALL, **PAPER),
    "norm or not": replace(SMALL, head_norm=not SMALL.head_norm),
}
LONG = {"normed heads": replace(SMALL, query_key_norm=True), "gated": replace(SMALL, attention_gate=True)}


def built(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for p in model.parameters():  # no scale is 1 and no bias 0
            p.add_(0.1 * torch.randn_like(p))
    return model


def said(model, short: bool, tokens, monkeypatch) -> torch.Tensor:
    """Logits of `tokens` (1, T): the first five at once, then one after another."""
    with monkeypatch.context() as patch:
        if not short:
            patch.setattr(ReadsOneMore, "read_one", lambda *_: None)
        torch.manual_seed(1)  # some models begin with noise
        state = model.init_state(1)
        for event in tokens.new_tensor([[7, 8, 9], [10, 11, 12]]):
            state = model.remember(event[None], state)
        cache = model.open(state, tokens.shape[1])
        parts = [model.extend(tokens[:, :5], cache)] + [model.extend(tokens[:, t : t + 1], cache) for t in range(5, tokens.shape[1])]
        assert (cache.one_token is not None) == (short and model.config not in LONG.values())
        return torch.cat(parts, dim=1)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("config", (KINDS | LONG).values(), ids=KINDS | LONG)
@pytest.mark.parametrize("kind", [RxT, DecoderLM])
@torch.no_grad()
def test_the_short_way_says_what_the_long_way_says(kind, config, double, monkeypatch):
    model, tokens = built(kind, config), torch.randint(7, 40, (1, 12))
    model = model.double() if double else model
    short, long = (said(model, way, tokens, monkeypatch) for way in (True, False))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_low_precision_leaves_a_single_token_exact(monkeypatch):
    model, tokens = built(RxT, SMALL), torch.randint(7, 40, (1, 12))
    state = model.init_state(1)
    exact = model.extend(tokens[:, :1], model.open(state, 1))
    cache = model.open(state, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.extend(tokens[:, :5], cache).dtype == torch.bfloat16
        assert model.extend(tokens[:, 5:6], cache).dtype == torch.float32
        first = model.extend(tokens[:, :1], model.open(state, 1))  # the slots were still read in bfloat16
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, exact, atol=0.05, rtol=0.05)


@torch.no_grad()
def test_several_conversations_padding_gradients_and_half_precision_take_the_long_way():
    model = built(RxT, SMALL)
    one = torch.full((1, 1), 9)
    cache = model.open(model.init_state(1), 4)
    assert model.read_one(torch.full((2, 1), 9), cache) is None and model.read_one(torch.full((1, 2), 9), cache) is None
    assert model.read_one(torch.full((1, 1), PAD), cache) is None and cache.used == 0
    model.extend(torch.tensor([[9, PAD]]), cache)
    assert model.read_one(one, cache) is None, "a cache that holds padding must be masked"
    with torch.enable_grad():
        assert model.read_one(one, model.open(model.init_state(1), 4)) is None
    half = model.bfloat16()
    assert half.read_one(one, half.open(half.init_state(1), 4)) is None


@torch.no_grad()
def test_rotations_may_be_more_precise_than_the_weights(monkeypatch):
    model, tokens = built(RxT, SMALL), torch.randint(7, 40, (1, 12))
    before = said(model, True, tokens, monkeypatch)
    model.rope.table = model.rope.table.to(torch.complex128)
    for short in (True, False):
        torch.testing.assert_close(said(model, short, tokens, monkeypatch), before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_full_cache_is_refused_and_stays_as_it_is():
    model = built(RxT, SMALL)
    cache = model.open(model.init_state(1), 2)
    for token in (7, 8):
        model.extend(torch.full((1, 1), token), cache)
    kept = cache.keys.clone()
    with pytest.raises(ValueError, match="holds 2 tokens, 2 used; 1 more do not fit"):
        model.extend(torch.full((1, 1), 9), cache)
    assert cache.used == 2 and torch.equal(cache.keys, kept)


@torch.no_grad()
def test_nothing_is_not_divided_by():
    model = built(RxT, SMALL)
    model.embedding.weight[9] = 0
    assert model.extend(torch.full((1, 1), 9), model.open(model.init_state(1), 4)).isfinite().all()


def test_a_linear_map_starts_as_pytorchs_and_is_only_stored_otherwise():
    torch.manual_seed(0)
    ours, layered = Linear(6, 10), LayerwiseLinear(2, 6, 10)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 10)
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    assert ours.weight.shape == (10, 6) and ours.weight.stride() == (1, 10) and layered.weight.stride() == (60, 1, 10)
    ours.load_state_dict(theirs.state_dict())
    assert ours.weight.stride() == (1, 10) and copy.deepcopy(ours).weight.stride() == (1, 10)


def test_what_a_cache_prepares_belongs_to_its_event():
    """Weights that change between two events are read anew."""
    model = built(RxT, SMALL)
    state, token = model.init_state(1).detach(), torch.full((1, 1), 9)
    with torch.no_grad():
        before = model.extend(token, model.open(state, 4))
        model.decoder[0].attention.to_q.weight.mul_(2)
        model.decoder[0].norm_memory.weight.mul_(2)
        after = model.extend(token, model.open(state, 4))
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, model(token, state), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_conversations_share_the_joined_maps_until_a_weight_changes_however_quietly():
    model = built(RxT, SMALL)
    kept = model.joined()
    assert model.joined() is kept
    for name, weight in model.decoder[1].named_parameters():
        if name.endswith(("norm_attention.weight", "norm_memory.weight", "norm_feedforward.weight", "to_q.weight", "attention.to_k.weight",
                          "attention.to_v.weight")):
            weight.data[(0,) * weight.ndim] += 1  # counts as no change for autograd
            changed = model.joined()
            assert changed is not kept and torch.equal(changed[0].to_qkv, kept[0].to_qkv)
            assert any(not torch.equal(new, old) for new, old in zip(changed[1][:3], kept[1][:3])), name
            kept = changed
    model.decoder[1].norm_slots.weight.data.add_(1)  # the slots' keys and values are made anew in any case
    assert model.joined() is kept
    assert model.double().joined()[0].to_qkv.dtype == torch.float64
