"""What the bench compares is the same mathematics; how long it takes is never tested."""

import shutil
from dataclasses import replace

import pytest
import torch

from rxt_lite.config import NANO_12M
from rxt_lite.experiments import speed
from rxt_lite.experiments.cost import decode_macs
from rxt_lite.experiments.speed import SIZES, Ours, Plain, Products, Torch, compile_layers, speed_rows
from rxt_lite.models import RxT

TINY = {"vocab_size": 50, "d_model": 16, "n_layers": 2, "n_slots": 5, "d_ff": 12, "max_len": 256}
SMALL = {
    "d128": replace(SIZES["d128"], **TINY, n_heads=2),
    "d128_experts": replace(SIZES["d128_experts"], **TINY, n_heads=2, d_expert=6),
    "nano_12m": replace(NANO_12M, **TINY, d_expert=6),
}


@pytest.fixture
def model(request):
    torch.manual_seed(0)
    return RxT(SMALL[request.param]).eval()


@pytest.mark.parametrize("model", SMALL, indirect=True)
@torch.no_grad()
def test_the_plain_loop_computes_what_the_library_computes(model):
    ours, plain = Ours(model), Plain(model)
    tokens, stm = torch.randint(7, 50, (3, 11)), model.init_state(3)
    torch.testing.assert_close(ours.decode(tokens, stm), plain.decode(tokens, stm), atol=1e-5, rtol=1e-5)
    after = ours.remember(tokens, stm)
    torch.testing.assert_close(after, plain.remember(tokens, stm), atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.answer(tokens, after, 8), plain.answer(tokens, after, 8))


@pytest.mark.parametrize("model", SMALL, indirect=True)
def test_pytorchs_own_layers_are_of_the_same_size(model):
    """To within a fifth, not counting experts that are not asked and what only one side has: router, gates, slots."""
    theirs, c = Torch(model.config), model.config
    count = lambda part: sum(p.numel() for p in part.parameters())  # noqa: E731
    asked = 1 if not c.n_experts else c.experts_per_token / c.n_experts
    ours = sum(count(layer) - count(layer.feedforward) + asked * count(layer.feedforward) for layer in model.decoder)
    if c.heads("self") == (c.n_heads, c.n_heads):  # nothing in torch has fewer heads
        assert abs(count(theirs.decoder) / ours - 1) < 0.2
        assert abs(count(theirs.encoder) / count(model.encoder) - 1) < 0.2


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("size", SMALL)
def test_every_row_has_its_numbers(size, bf16, monkeypatch):
    monkeypatch.setattr(speed, "SIZES", SMALL)
    rows = speed_rows(size, rounds=1, bf16=bf16)
    assert {(r["task"], r["arm"]) for r in rows} >= {("training", a) for a in ("ours", "plain", "torch")}
    assert all(0 < r["low"] <= r["value"] <= r["high"] for r in rows)
    assert all(r["over_plain"] > 0 for r in rows if r["arm"] not in ("products", "square"))
    assert {(r["task"], r["arm"]) for r in rows if r["share"]} == {(r["task"], a) for r in rows for a in ("ours", "plain")}


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(" " in torch.__file__, reason="torch.compile cannot link against a PyTorch whose path has a space in it")
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@torch.no_grad()
def test_compiled_layers_compute_the_same_and_no_token_is_compiled_anew():
    torch.manual_seed(0)
    model, stats = RxT(SMALL["d128"]).eval(), torch._dynamo.utils.counters["stats"]
    tokens, stm = torch.randint(7, 50, (3, 11)), model.init_state(3)
    before = Ours(model).answer(tokens, stm, 6), Ours(model).decode(tokens, stm), Ours(model).remember(tokens, stm)
    compile_layers(model)
    Products.of(lambda: Ours(model).answer(tokens, stm, 6))  # noting products must not keep it from being compiled
    graphs, answer = stats["unique_graphs"], Ours(model).answer(tokens, stm, 6)
    assert stats["unique_graphs"] - graphs == 2, "one for the query, one for a token after any number of others, all layers in it"
    one, after = tokens[:1], stm[:, :1]
    assert torch.equal(Ours(model).answer(one, after, 6), answer[:1]), "a conversation alone takes a shorter way"
    Ours(model).answer(one, after, 7)
    graphs = stats["unique_graphs"]
    assert torch.equal(Ours(model).answer(one, after, 9)[:, :6], answer[:1]) and stats["unique_graphs"] == graphs
    torch.testing.assert_close(before, (answer, Ours(model).decode(tokens, stm), Ours(model).remember(tokens, stm)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", SMALL, indirect=True)
def test_the_products_that_run_alone_are_those_that_were_counted(model):
    """Forward and backward pass of the decoder: the same multiply-adds in `cost.py` and in what was noted."""
    c, tokens = model.config, torch.randint(7, 50, (3, 11))
    with Products() as products:
        Ours(model).decode(tokens, model.init_state(3).detach()).sum().backward()
    reading = 2 * c.n_layers * 3 * c.n_slots * c.heads("cross")[1] * c.d_head * c.d_model
    assert products.macs == pytest.approx(3 * (3 * decode_macs(c, 11, 0, slots=True) + reading), rel=0.05)
    products()


@torch.no_grad()
def test_without_a_backward_pass_an_attention_is_two_products():
    config = SMALL["d128"]
    model, tokens = RxT(config), torch.randint(7, 50, (3, 11))
    noted = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), Products() as products:
            model.decode(tokens, model.read_slots(model.init_state(3)))
        noted.append(products.macs)
    reading = 2 * config.n_layers * 3 * config.n_slots * config.heads("cross")[1] * config.d_head * config.d_model
    assert noted[0] == noted[1] == pytest.approx(3 * decode_macs(config, 11, 0, slots=True) + reading, rel=0.05)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="'huge'.*d128, d128_experts, nano_12m"):
        speed_rows("huge")


@torch.no_grad()
def test_bfloat16_is_the_same_model_to_its_precision():
    torch.manual_seed(0)
    for config in SMALL.values():
        model = RxT(config).eval()
        tokens, stm = torch.randint(7, 50, (3, 11)), model.init_state(3)
        exact, after = model(tokens, stm), model.remember(tokens, stm)
        with torch.autocast("cpu", torch.bfloat16):
            half, half_after = model(tokens, stm), model.remember(tokens, stm)
        assert (half - exact).norm() / exact.norm() < 0.03 and (half_after - after).norm() / after.norm() < 0.03
        assert not torch.equal(half.float(), exact), "autocast had no effect"


def test_compiling_where_it_cannot_work_says_so(monkeypatch):
    monkeypatch.setattr(torch, "__file__", "/a path/torch/__init__.py")
    with pytest.raises(ValueError, match="/a path/.*space"):
        compile_layers(RxT(SMALL["d128"]))
