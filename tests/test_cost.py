"""Costs are counted from shapes; PyTorch's own counter, watching the real models, must agree."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rxt_lite.config import BOOK, GATES, MEMORY_ATTENTIONS, NANO_12M, PRESETS, STORY, ModelConfig
from rxt_lite.experiments.cost import cost_rows, growth_exponent, parameter_counts, total_rows
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


# ------------------------------------------------------------------------------------------------ whole conversations
def by_arm(rows):
    return {row["arm"]: row for row in rows}


@pytest.mark.parametrize("n, power", [(2, 1), (3, 2), (50, 0.5), (51, 3)])
def test_the_exponent_of_a_power_is_found(n, power):
    assert growth_exponent([7 * k**power for k in range(1, n + 1)]) == pytest.approx(power, abs=1e-9)


def test_the_exponent_is_that_of_the_later_half():
    early = [1000.0] * 10 + [n**2 for n in range(11, 21)]
    assert growth_exponent(early[:9] + [100.0, *early[10:]]) == pytest.approx(2)
    with pytest.raises(ValueError, match="turns=1 must be at least 2"):
        growth_exponent([5])


def test_totals_add_up_and_the_whole_of_rxt_is_its_answers_and_updates():
    rows, totals = cost_rows(CONFIG, 12, TQ, TA), by_arm(total_rows(CONFIG, 12, TQ, TA))
    assert list(totals) == ["rxt_answer", "rxt_update", "rxt", "reread", "prefix_cached"]
    for arm in ("rxt_answer", "rxt_update", "reread", "prefix_cached"):
        of = [r for r in rows if r["arm"] == arm]
        assert [totals[arm][key] for key in ("tokens", "macs")] == [sum(r[key] for r in of) for key in ("tokens", "macs")]
        assert totals[arm]["state_bytes"] == of[-1]["state_bytes"] and totals[arm]["turns"] == 12
    for key in ("tokens", "macs"):
        assert totals["rxt"][key] == totals["rxt_answer"][key] + totals["rxt_update"][key]
    assert totals["rxt"]["state_bytes"] == totals["rxt_update"]["state_bytes"], "one memory, not two"


@pytest.mark.parametrize("preset", PRESETS)
def test_memory_grows_as_n_and_rereading_as_n_squared(preset):
    """In tokens, for every shape there is. Comparing with the past bends multiply-adds further up."""
    totals = by_arm(total_rows(PRESETS[preset], 1000))
    assert totals["rxt"]["exponent_tokens"] == totals["rxt"]["exponent_macs"] == 1
    assert totals["reread"]["exponent_tokens"] == pytest.approx(2, abs=0.005)
    assert totals["prefix_cached"]["exponent_tokens"] == pytest.approx(1, abs=0.001)
    assert 2 < totals["reread"]["exponent_macs"] < 3 and 1 < totals["prefix_cached"]["exponent_macs"] < 2


@pytest.mark.parametrize("config", [BOOK, STORY, NANO_12M], ids=["book", "story", "nano_12m"])
def test_totals_agree_with_the_profiler_watching_a_conversation(config):
    """Two turns, every arm as it works; held to one per cent."""
    turns, window = 2, 2 * (TQ + TA)
    rxt = RxT(config).eval().requires_grad_(False)
    stateless = DecoderLM(replace(config, max_len=window)).eval().requires_grad_(False)
    tokens = lambda n: torch.ones(1, n, dtype=torch.long)  # noqa: E731

    def by_rxt():
        stm = rxt.init_state(1)
        for _ in range(turns):
            answer(rxt, stm, tokens(TQ))
            stm = rxt.remember(tokens(TQ + TA), stm)

    def by_cache():
        cache = stateless.open(stateless.init_state(1), window)
        for turn in range(turns):
            answer(stateless, None, tokens(TQ + (turn > 0)), cache)

    def by_rereading():
        for turn in range(turns):
            answer(stateless, stateless.init_state(1), tokens(turn * (TQ + TA) + TQ))

    totals = by_arm(total_rows(config, turns, TQ, TA))
    for arm, work in (("rxt", by_rxt), ("prefix_cached", by_cache), ("reread", by_rereading)):
        assert counted(work) == pytest.approx(totals[arm]["macs"], rel=0.01), arm


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
