"""Memories after very many events: what holds, and what is known to collapse."""

from dataclasses import replace

import pytest
import torch

from rxt_lite.config import PAPER, TINY
from rxt_lite.experiments.stability import EVENTS, every_memory, shape_of, stability_rows
from rxt_lite.models import RxT

SMALL = replace(TINY, d_model=16, n_heads=2, d_ff=16, n_slots=6, vocab_size=64)


def last(rows):
    """The last row of each text."""
    return {row["text"]: row for row in rows}


def model(config):
    torch.manual_seed(0)
    return RxT(config).eval()


def test_the_three_measures_on_memories_that_can_be_checked_by_hand():
    same = torch.ones(1, 1, 4, 8)
    apart = 3 * torch.eye(4, 8).view(1, 1, 4, 8)
    one, many = shape_of(torch.cat([same, apart], dim=1))
    assert one == pytest.approx({"norm": 1.0, "cosine": 1.0, "rank": 1.0}, abs=1e-5)
    assert many == pytest.approx({"norm": 3 / 8**0.5, "cosine": 0.0, "rank": 4.0}, abs=1e-5)
    huge = shape_of(apart * 1e30)[0]
    assert huge == pytest.approx({"norm": 3e30 / 8**0.5, "cosine": 0.0, "rank": 4.0}, rel=1e-4, abs=1e-4)  # its squares overflow


@pytest.mark.parametrize("gate", ["slot", "linear", "static"])
def test_ten_thousand_events_leave_a_sigmoid_gated_memory_finite_and_no_larger_than_its_updates(gate):
    for row in stability_rows(model(replace(SMALL, gate=gate)), 10_000):
        assert row["norm"] < 5, row
    assert row["event"] == 10_000


def test_every_memory_is_finite_and_bounded_unless_its_gate_can_amplify():
    """A sigmoid gate mixes, `replace` replaces: neither can grow. A sum or a tanh gate can, and the table shows it."""
    for config in every_memory(SMALL):
        for row in last(stability_rows(model(config), 300)).values():
            if config.gate == "none" or config.gate_activation == "tanh":
                assert row["event"] <= 300
            else:
                assert row["event"] == 300 and row["norm"] < 5, row


def test_the_known_collapse_is_shown():
    """The paper's settings without training: without a gate slots grow, and under either they become one vector."""
    paper = replace(SMALL, **PAPER)
    no_gate = [r for r in stability_rows(model(replace(paper, gate="none")), 100) if r["text"] == "random"]
    assert no_gate[-1]["norm"] > 2 * no_gate[0]["norm"] and no_gate[-1]["cosine"] > 0.9
    gated = last(stability_rows(model(paper), 100))["random"]
    assert gated["cosine"] > 0.9 and gated["rank"] < 2 < SMALL.n_slots
    named = last(stability_rows(model(replace(SMALL, gate="linear")), 100))["random"]
    assert named["rank"] > gated["rank"], "slot embeddings keep slots apart"


def test_a_memory_that_overflows_says_at_which_event():
    grows = model(replace(SMALL, gate="static", gate_activation="tanh"))
    with torch.no_grad():
        grows.memory.gate.weight.fill_(-3)  # (1 + g) new + (1 - g) old with g near -1: the old slot doubles each time
    rows = stability_rows(grows, 1000)
    assert rows[-1]["norm"] == float("inf") and rows[-1]["cosine"] is None and 100 < rows[-1]["event"] < 1000
    assert {row["event"] for row in rows} <= {*EVENTS, rows[-1]["event"]}
