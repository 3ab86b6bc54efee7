"""Costs are counted from shapes; PyTorch's own counter, watching the real models, must agree."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rxt_lite.config import GATES, MEMORY_ATTENTIONS, ModelConfig
from rxt_lite.experiments.cost import cost_rows
from rxt_lite.models import DecoderLM, RxT

CONFIG = ModelConfig(d_model=48, n_heads=4, n_layers=3, n_slots=7, d_ff=80, max_len=128, vocab_size=300)
TQ, TA = 5, 4


def counted(work):
    # the fused CPU kernel is unknown to the counter, the plain one is two products
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops() // 2  # a multiply-add is two operations


def answer(model, state, prompt, cache=None):
    """What an arm does in one turn: read the prompt, then feed the answer but for its last token."""
    cache = cache or model.open(state, 128)
    for tokens in [prompt, *torch.ones(1, TA - 1, dtype=torch.long).split(1, dim=1)]:
        model.extend(tokens, cache)
    return cache


@pytest.mark.parametrize(
    "variant, gate, heads",
    [*((v, "linear", (4, 4)) for v in MEMORY_ATTENTIONS), *(("simple", g, (4, 2)) for g in GATES), ("self", "slot", (2, 2))],
    ids=str,
)
def test_counts_agree_with_the_profiler(variant, gate, heads):
    config = replace(CONFIG, memory_attention=variant, gate=gate, self_heads=heads, cross_heads=heads, memory_heads=heads)
    rows = {(r["arm"], r["turn"]): r for r in cost_rows(config, 3, TQ, TA)}
    tokens = lambda n: torch.ones(1, n, dtype=torch.long)  # noqa: E731
    rxt, stateless = RxT(config).eval().requires_grad_(False), DecoderLM(config).eval().requires_grad_(False)
    stm = rxt.init_state(1)
    assert counted(lambda: answer(rxt, stm, tokens(TQ))) == rows["rxt_answer", 2]["macs"]
    assert counted(lambda: rxt.remember(tokens(TQ + TA), stm)) == rows["rxt_update", 2]["macs"]
    empty = stateless.init_state(1)
    assert counted(lambda: answer(stateless, empty, tokens(2 * (TQ + TA) + TQ))) == rows["reread", 3]["macs"]
    cache = answer(stateless, empty, tokens(TQ))
    assert counted(lambda: answer(stateless, empty, tokens(TQ + 1), cache)) == rows["prefix_cached", 2]["macs"]
    assert cache.used == rows["prefix_cached", 1]["tokens"] + rows["prefix_cached", 2]["tokens"]


def test_state_bytes_are_those_of_the_real_states():
    rows = {(r["arm"], r["turn"]): r["state_bytes"] for r in cost_rows(CONFIG, 3, TQ, TA)}
    stm = RxT(CONFIG).init_state(1)
    assert rows["rxt_answer", 1] == rows["rxt_update", 3] == stm.numel() * stm.element_size()
    model = DecoderLM(CONFIG)
    transcript = model.remember(torch.ones(1, 3 * (TQ + TA), dtype=torch.long), model.init_state(1))
    assert rows["reread", 3] == transcript.numel() * transcript.element_size()
    cache = model.open(model.init_state(1), 3 * (TQ + TA) - 1)
    assert rows["prefix_cached", 3] == sum(t.numel() * t.element_size() for t in (cache.keys, cache.values))


def test_tokens_grow_as_the_sum_of_the_first_n_numbers_without_memory_and_as_n_with_it():
    rows = cost_rows(CONFIG, 20, TQ, TA)
    total = lambda arm, n: sum(r["tokens"] for r in rows if r["arm"] == arm and r["turn"] <= n)  # noqa: E731
    assert total("rxt_answer", 20) == 20 * (TQ + TA - 1) and total("rxt_update", 20) == 20 * (TQ + TA)
    assert total("reread", 20) == (TQ + TA) * 20 * 21 // 2 - 20


@pytest.mark.parametrize("wrong", [{"turns": 0}, {"turns": 1, "query_tokens": 0}, {"turns": 1, "answer_tokens": -1}], ids=str)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        cost_rows(CONFIG, **wrong)
