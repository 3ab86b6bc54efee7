"""Costs are counted from shapes; PyTorch's own counter, watching the real models, must agree."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rxt_lite.config import GATES, MEMORY_ATTENTIONS, ModelConfig
from rxt_lite.experiments.cost import cost_rows, parameter_counts
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


def heads(query, key_value):
    return dict.fromkeys(("self_heads", "cross_heads", "memory_heads"), (query, key_value))


EXPERTS = {"n_experts": 5, "experts_per_token": 2, "d_expert": 24}


@pytest.mark.parametrize(
    "options",
    [
        *({"memory_attention": v, "gate": "linear"} for v in MEMORY_ATTENTIONS),
        *({"gate": g, **heads(4, 2)} for g in GATES),
        {"memory_attention": "self", **heads(2, 2), "attention_gate": True, "query_key_norm": True},
        {"gate": "linear", "gate_per_slot": False, "gate_statistic": "learned"},
        {"stateless_before": 2, "stateless_after": 1},
        EXPERTS, {**EXPERTS, "shared_experts": 1, "expert_bias": "off"}, {**EXPERTS, "shared_experts": 2, "expert_bias": "global"},
    ],
    ids=str,
)
def test_counts_agree_with_the_profiler(options):
    config = replace(CONFIG, **options)
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


def test_active_parameters_leave_out_the_experts_that_are_not_asked():
    config = replace(CONFIG, **EXPERTS)
    expert = 2 * 24 * 48 + 2 * 24 + 24 * 48 + 48
    counts = parameter_counts(RxT, config)
    assert counts["total"] == sum(p.numel() for p in RxT(config).parameters())
    assert counts["total"] - counts["active"] == config.n_layers * 3 * expert
    dense = parameter_counts(RxT, CONFIG)
    assert dense["total"] == dense["active"]


@pytest.mark.parametrize("wrong", [{"turns": 0}, {"turns": 1, "query_tokens": 0}, {"turns": 1, "answer_tokens": -1}], ids=str)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        cost_rows(CONFIG, **wrong)
