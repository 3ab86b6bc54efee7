"""What "Learned forgetting" says in its text holds, and each known mistake in its exercises gets its own sentence."""

import math
import random
from dataclasses import replace

import pytest
import torch
from test_chapters import cells, published, run, verdict

from rxt_lite.config import MEMNET, MEMNET_AS_DESCRIBED
from rxt_lite.experiments.forgetting import Task, theory
from rxt_lite.layers.memory_bank import MultiHeadMemoryBank, Wish

CHAPTER = "learned-forgetting"
NAMES = {"math": math, "random": random, "torch": torch, "replace": replace, "MEMNET": MEMNET, "MEMNET_AS_DESCRIBED": MEMNET_AS_DESCRIBED,
         "MultiHeadMemoryBank": MultiHeadMemoryBank, "Wish": Wish, "V": 12}


@pytest.fixture(scope="module")
def checks():
    return run([cells(CHAPTER)["checks"]], **NAMES)


# --------------------------------------------------------------------------------------------------- what the text says
def test_the_survival_of_a_random_slot_is_its_closed_form():
    """Played: facts at random places, each written into a slot by lot; the share alive k events after its write."""
    source = cells(CHAPTER)["km"]
    truth = run([source[source.index("def truth(") : source.index("tiny_lives")]], math=math, N=6, T=32, F=4)["truth"]
    dice, lives, k = random.Random(0), [], 12
    for _ in range(20_000):
        told = dice.sample(range(32), 4)
        slots = {t: dice.randrange(6) for t in told}
        lives += [not any(slots[u] == slots[t] for u in told if t < u <= t + k) for t in told if t + k < 32]
    assert sum(lives) / len(lives) == pytest.approx(truth("random", k), abs=0.01)
    assert truth("random", 0) == 1 and truth("random", 31) == pytest.approx((5 / 6) ** 3)
    assert [truth("always", k) for k in (5, 6)] == [1.0, 0.0]


def test_a_mean_over_all_places_brings_the_survival_back_to_the_share_that_is_kept():
    """The closed form by age, over the places where a fact may stand, is the closed form of the accuracy."""
    source = cells(CHAPTER)["km"]
    truth = run([source[source.index("def truth(") : source.index("tiny_lives")]], math=math, N=6, T=32, F=4)["truth"]
    for arm in ("learned", "always", "random"):
        kept = sum(truth(arm, since) for since in range(32)) / 32
        assert kept + (1 - kept) / 12 == pytest.approx(theory(arm, Task(), 6)), arm


def test_the_numbers_of_the_text_are_those_of_its_equations():
    form = run([cells(CHAPTER)["by-hand"].split("\n\n\n")[0]])["closed_form"]
    assert form("always", 2, 4, 2, 2) == 3 / 4 and form("random", 2, 4, 2, 2) == 7 / 8  # by hand
    assert (form("always", 4, 20, 2, 5), form("random", 4, 20, 2, 5)) == pytest.approx((0.36, 0.9))  # exercise 1
    assert form("always", 8, 40, 4, 10) == pytest.approx(0.28)  # quiz 1


def test_the_step_of_the_text_gives_what_its_cell_prints():
    step = run([cells(CHAPTER)["step"].split("\n\n\nsmall")[0]], torch=torch)["step"]
    small = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    _, values, age = step(small, small, torch.tensor([[1.0, 4.0, 2.0]]), torch.ones(1, 2), torch.tensor([[4.0, 0.0]]), torch.tensor([0.75]))
    assert values[0].tolist() == [[1, 0], [3, 0.25], [1, 1]] and age[0].tolist() == [2, 1.25, 3]


def test_a_little_noise_costs_next_to_nothing_and_a_tenth_of_it_an_eighth_of_the_facts(checks):
    kept = {p: checks["leak_by_play"](p, 6, 32, 4) for p in (0.03, 0.1, 1.0)}
    assert kept[0.03] > 0.99 and kept[0.1] == pytest.approx(7 / 8, abs=0.02) and kept[1.0] == pytest.approx(6 / 32, abs=0.01)


# ------------------------------------------------------------------------------------------------------------ the checks
@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.36, 0.9), "right\n"),
        ((0.2, 0.875), "the shares kept"),
        ((0.4, 0.9), "of the OTHER 0.8"),
        ((0.2, 0.9), "always: add what is guessed"),
        ((0.36, 0.875), "random: add what is guessed"),
        ((0.36, 0.725), "nobody after it"),
        ((0.36, 0.8), "only the earlier fact"),
        ((0.9, 0.36), "changed places"),
        ((0.5, 0.5), "not right"),
    ],
)
def test_check_of_the_closed_forms(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_two_forms"], answer)


def opened(gates):
    return [t for t, g in enumerate(gates) if g]


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda gates, n: None, "no answer yet"),
        (lambda gates, n: opened(gates)[-n:], "right\n"),
        (lambda gates, n: set(opened(gates)[-n:]), "right\n"),
        (lambda gates, n: [*range(len(gates))][-n:], "the last N events"),
        (lambda gates, n: [t for t in [*range(len(gates))][-n:] if gates[t]], "a refused event takes no slot"),
        (lambda gates, n: opened(gates)[:n], "the first N"),
        (lambda gates, n: opened(gates), "only N slots"),
        (lambda gates, n: [t + 1 for t in opened(gates)[-n:]], "count from 0"),
        (lambda gates, n: [t for t, g in enumerate(gates) if not g][-n:], "refused"),
        (lambda gates, n: [77], "is not what the bank holds"),
    ],
)
def test_check_of_what_is_left(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_left"], answer)


@pytest.mark.parametrize(
    "options, says",
    [
        ({}, "right\n"),
        ({"shift": 1}, "FEWER than N"),
        ({"shift": -1}, "not at N - 1"),
        ({"facts_write": False}, "later are written too"),
        ({"by_lot": True}, "not one by lot"),
    ],
    ids=str,
)
def test_check_of_the_leaky_gate(checks, capsys, options, says):
    played = lambda *args: checks["leak_by_play"](*args, seed=7, **options)  # noqa: E731
    assert says in verdict(capsys, checks["check_leaky"], played)


def test_check_of_the_leaky_gate_knows_formulas_that_are_none(checks, capsys):
    assert "no answer yet" in verdict(capsys, checks["check_leaky"], lambda *args: None)
    assert "straight line" in verdict(capsys, checks["check_leaky"], lambda p, N, T, F: 1 - p + p * N / T)
    assert "is not near" in verdict(capsys, checks["check_leaky"], lambda p, N, T, F: 0.01)

    def guessed(*args):
        kept = checks["leak_by_play"](*args, seed=7)
        return kept + (1 - kept) / 12

    assert "with guesses" in verdict(capsys, checks["check_leaky"], guessed)


@torch.no_grad()
def written_then_idle(config, k):
    """The slots right after a write, and after k idle steps."""
    torch.manual_seed(0)
    bank, (H, D) = MultiHeadMemoryBank(config), (config.bank_heads, config.d_model)
    slots = bank.first_slots(1)._replace(values=torch.randn(1, config.n_slots, D))
    wish = Wish(torch.randn(1, H, D), torch.randn(1, H, D), torch.ones(1, H), torch.ones(1, H, 1))
    first, _ = bank.write(slots, wish)
    later = first
    for _ in range(k):
        later, _ = bank.write(later, wish._replace(gate=torch.zeros(1, H)))
    return first, later


def length(slots):
    return slots.values.norm(dim=-1).mean().item()


def fades(power=1, more=0):
    def answer(config, k):
        first, later = written_then_idle(config, k + more)
        return (length(later) / length(first)) ** power

    return answer


def by_strength(config, k):
    first, later = written_then_idle(config, k)
    n = int(first.strength.argmax())
    return (later.strength[0, n] / first.strength[0, n]).item()


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda config, k: None, "no answer yet"),
        (fades(), "right: "),
        (fades(more=1), "not k + 1"),
        (fades(more=-1), "one idle step is missing"),
        (fades(power=2), "the square"),
        (by_strength, "MEMNET_AS_DESCRIBED: this is the strength"),
        (lambda config, k: 0.123, "compare the lengths"),
    ],
)
def test_check_of_the_broken_promise(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_fades"], answer)


def test_published_solutions_of_forgetting_pass(checks, capsys):
    for function, check in (("left", "check_left"), ("leaky", "check_leaky"), ("left_after", "check_fades")):
        solved = run([published(CHAPTER, function)], **NAMES)
        assert verdict(capsys, checks[check], solved[function]).startswith("right"), function
