"""Latency is measured, never tested: here stands what each arm does when it is timed, and how rows come from times."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from rxt_lite.cli import app
from rxt_lite.config import ModelConfig
from rxt_lite.experiments.cost import answer_macs, cost_rows, decode_macs
from rxt_lite.experiments.latency import ARMS, ladder, latency_rows, measure, measure_latency, ratio_rows, works
from rxt_lite.models import DecoderLM, RxT
from rxt_lite.models.base import Cache

CONFIG = ModelConfig(d_model=48, n_heads=4, n_layers=3, n_slots=7, d_ff=80, max_len=16, vocab_size=300)
TURNS, TQ, TA = (1, 2, 5), 5, 4


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return tuple(m.eval().requires_grad_(False) for m in (RxT(CONFIG), DecoderLM(replace(CONFIG, max_len=5 * (TQ + TA)))))


@pytest.fixture(scope="module")
def cells(models):
    return works(*models, TURNS, TQ, TA)


@pytest.fixture(scope="module")
def costs():
    return {(row["arm"], row["turn"]): row for row in cost_rows(CONFIG, 5, TQ, TA)}


def test_every_arm_is_there_at_every_turn(cells):
    assert set(cells) == {(arm, turn) for arm in ARMS for turn in TURNS}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_runs_the_tokens_that_it_says(arm, turn, monkeypatch, models, cells, costs):
    """Many tokens come through the embedding, a single one more through the cache alone."""
    seen, admit_one = [], Cache.admit_one
    handles = [m.embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel())) for m in models]
    monkeypatch.setattr(Cache, "admit_one", lambda cache: seen.append(1) or admit_one(cache))
    with torch.no_grad():
        cells[arm, turn]()
    for handle in handles:
        handle.remove()
    assert sum(seen) == costs[arm, turn]["tokens"]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_does_the_multiply_adds_that_were_counted(arm, turn, cells, costs):
    """Rereading is done the cheap way: the transcript first, without logits, then the query."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        cells[arm, turn]()
    past = (turn - 1) * (TQ + TA)
    expected = costs[arm, turn]["macs"]
    if arm == "reread":
        expected = decode_macs(CONFIG, past, 0, slots=False) - past * CONFIG.d_model * CONFIG.vocab_size
        expected += answer_macs(CONFIG, TQ, past, TA, slots=False)
        assert expected <= costs[arm, turn]["macs"]
    assert counter.get_total_flops() // 2 == expected


@torch.no_grad()
def test_rereading_and_a_cache_choose_the_same_tokens_as_often_as_they_are_run(cells):
    for turn in TURNS:
        chosen = cells["reread", turn]()
        assert chosen.shape == (1, TA)
        for _ in range(3):  # the cache is rewound each time
            assert torch.equal(cells["prefix_cached", turn](), chosen)


@torch.no_grad()
def test_the_memory_of_turn_n_has_been_through_the_events_before(models, cells):
    rxt, _ = models
    conversation = torch.randint(7, 300, (1, 45), generator=torch.Generator().manual_seed(0))
    stm = rxt.init_state(1)
    for turn, event in enumerate(conversation.split(TQ + TA, dim=1), start=1):
        stm = rxt.remember(event, stm)
        if turn in TURNS:
            torch.testing.assert_close(cells["rxt_update", turn](), stm)


def test_the_ladder_ends_with_the_last_turn():
    assert [ladder(n) for n in (1, 2, 7, 64, 200)] == [
        [1], [1, 2], [1, 2, 4, 7], [1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8, 16, 32, 64, 128, 200]]


def test_arms_take_turns_within_a_round_and_every_cell_is_measured_once_a_round():
    calls = []
    cells = {(arm, turn): lambda arm=arm, turn=turn: calls.append((arm, turn)) for turn in (1, 2, 4) for arm in ARMS}
    times = measure(cells, rounds=3)
    assert list(times) == list(cells) and all(len(values) == 3 for values in times.values())
    arms = [arm for n, (arm, _) in enumerate(calls) if not n or calls[n - 1][0] != arm]
    assert arms == 5 * list(ARMS), "two rounds to warm up, then three"
    for block in range(0, len(calls), 4):  # one run that is not counted, then the turns in some order
        assert sorted(turn for _, turn in calls[block + 1 : block + 4]) == [1, 2, 4] and calls[block] == calls[block + 1]
    assert len({tuple(calls[block + 1 : block + 4]) for block in range(0, len(calls), 16)}) > 1, "the order changes"


def test_rows_are_medians_and_quartiles_and_ratios_are_paired():
    """Turn 4 takes twice as long as turn 1 in every round, though the machine slows down fourfold meanwhile."""
    times = {("reread", 1): [1.0, 2.0, 3.0, 4.0, 4.0], ("reread", 4): [2.0, 4.0, 6.0, 8.0, 8.0]}
    first, last = latency_rows(times)
    assert first == {"arm": "reread", "turn": 1, "median_ms": 3.0, "low_ms": 2.0, "high_ms": 4.0, "n": 5}
    assert last["median_ms"] == 6.0
    assert ratio_rows(times) == [
        {"arm": "reread", "turn": 1, "over_first": 1.0, "low": 1.0, "high": 1.0, "n": 5},
        {"arm": "reread", "turn": 4, "over_first": 2.0, "low": 2.0, "high": 2.0, "n": 5}]
    assert latency_rows({("reread", 1): [5.0]})[0]["high_ms"] == 5.0, "one round has no spread"


@pytest.mark.parametrize("wrong, words", [
    ({"turns": 0}, "turns=0 must be at least 1"), ({"rounds": 0}, "rounds=0"), ({"answer_tokens": 0}, "answer_tokens=0"),
    ({"query_tokens": 14}, "18 tokens does not fit the window of max_len=16"),
], ids=str)
def test_nonsense_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        measure_latency(CONFIG, **{"turns": 2, "query_tokens": 4, "answer_tokens": 4, "rounds": 1, **wrong})


@pytest.mark.parametrize("extra, keys", [
    ((), ["arm", "turn", "median_ms", "low_ms", "high_ms", "n"]), (("--ratios",), ["arm", "turn", "over_first", "low", "high", "n"])])
def test_the_command_prints_a_row_for_each_arm_and_turn(extra, keys):
    done = CliRunner().invoke(app, ["latency", "--preset", "tiny", "--turns", "3", "--rounds", "2", "--json", *extra])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(row) for row in rows] == len(rows) * [keys]
    assert {(row["arm"], row["turn"]) for row in rows} == {(arm, turn) for arm in ARMS for turn in (1, 2, 3)}
    assert all(row[keys[3]] <= row[keys[2]] <= row[keys[4]] and row["n"] == 2 for row in rows)
