"""The checks beside the exercises of the chapters on cost and latency: each known mistake gets its own sentence."""

import math
import statistics
from dataclasses import replace
from itertools import accumulate

import pytest
from test_chapters import cells, published, run, verdict

from rxt_lite.config import BOOK


# ----------------------------------------------------------------------------------------------- Linear or quadratic
@pytest.fixture(scope="module")
def counting():
    return run([cells("linear-or-quadratic")["checks"]], math=math, replace=replace, accumulate=accumulate, BOOK=BOOK)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((464, 216), "right"),
        ((264, 88), "turn 3 alone"),
        ((176, 84), "this is T = 2"),
        ((240, 120), "the pairs are missing"),
        ((224, 96), "the tokens are missing"),
        ((464, 464), "only the 4 new tokens"),
        ((464, 168), "compared with all that are there"),
        ((216, 464), "changed places"),
        ((1, 2), "not right"),
    ],
)
def test_check_of_three_turns(counting, capsys, answer, says):
    assert says in verdict(capsys, counting["check_by_hand"], answer)


def turns_by_hand(alpha, beta, T, turns, cached):
    new = [T if cached else t * T for t in range(1, turns + 1)]
    return sum(alpha * n + beta * n * t * T for t, n in enumerate(new, start=1))


def test_the_numbers_of_the_first_exercise_are_what_the_equation_says():
    assert [turns_by_hand(10, 1, 4, 3, cached) for cached in (False, True)] == [464, 216]
    assert [turns_by_hand(10, 1, 2, 3, cached) for cached in (False, True)] == [176, 84]


def turning(c, *, maps=4, feed=3, pair=2, words=True, layers=True, per_layer=True, upside_down=False):
    D, L = c.d_model, c.n_layers
    alpha = (L if layers else 1) * (maps * D * D + feed * D * c.d_ff) + (D * c.vocab_size if words else 0)
    found = alpha / (pair * D * (L if per_layer else 1))
    return 1 / found if upside_down else found


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"upside_down": True}, "upside down"),
        ({"words": False}, "scores for V words"),
        ({"pair": 1}, "a pair costs two"),
        ({"per_layer": False}, "compared in every layer"),
        ({"layers": False, "per_layer": False}, "layers: the maps are in each"),
        ({"feed": 2}, "3 D F in all"),
        ({"maps": 3}, "is not right"),
    ],
)
def test_check_of_the_turning_point(counting, capsys, how, says):
    assert says in verdict(capsys, counting["check_turning"], lambda c: turning(c, **how))


def first(memory, rival, *, totals=True, strictly=True, start=1, never=None):
    pairs = zip(accumulate(memory), accumulate(rival)) if totals else zip(memory, rival)
    return next((t for t, (m, r) in enumerate(pairs, start=start) if m < r or (not strictly and m == r)), never)


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"totals": False}, "compares single turns"),
        ({"start": 0}, "counted from 1"),
        ({"strictly": False}, "it has to cost less"),
        ({"never": -1}, "return None"),
        ({"start": 5}, "expected"),
    ],
)
def test_check_of_the_first_cheaper_turn(counting, capsys, how, says):
    assert says in verdict(capsys, counting["check_level"], lambda memory, rival: first(memory, rival, **how))


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda totals: math.log2(totals[-1] / totals[len(totals) // 2 - 1]), "right"),
        (lambda totals: totals[-1] / totals[len(totals) // 2 - 1], "that is the ratio"),
        (lambda totals: math.log(totals[-1] / totals[len(totals) // 2 - 1]), "logarithm of 2"),
        (lambda totals: -math.log2(totals[-1] / totals[len(totals) // 2 - 1]), "upside down"),
        (lambda totals: math.log(totals[-1]) / math.log(len(totals)), "compare two totals"),
        (lambda totals: math.log2(totals[-1] / totals[len(totals) // 2]), "place 63"),
        (lambda totals: 9.9, "is not right"),
    ],
)
def test_check_of_the_exponent(counting, capsys, answer, says):
    assert says in verdict(capsys, counting["check_exponent"], answer)


def test_checks_of_the_count_know_no_answer(counting, capsys):
    for check, nothing in (("check_turning", lambda c: None), ("check_level", lambda m, r: "?"), ("check_exponent", lambda t: None)):
        assert "no answer yet" in verdict(capsys, counting[check], nothing)


def test_published_solutions_of_the_count_pass(counting, capsys):
    for function, check in (("turning", "check_turning"), ("first_cheaper", "check_level"), ("exponent", "check_exponent")):
        solved = run([published("linear-or-quadratic", function)], math=math, accumulate=accumulate)
        assert verdict(capsys, counting[check], solved[function]) == "right\n"


# -------------------------------------------------------------------------------------------------- Constant latency
@pytest.fixture(scope="module")
def timing():
    return run([cells("constant-latency")["checks"]], math=math)


@pytest.mark.parametrize(
    "middle, ratio, says",
    [
        (None, 2, "no answer yet"),
        (12, 2, "right"),
        (27.2, 2, "that is the mean"),
        (90, 2, "the largest"),
        (10, 2, "the smallest"),
        (50, 2, "half way between"),
        (13, 2, "take the third"),
        (12, 1.5, "ratio of the medians"),
        (12, 0.5, "the later turn over the first"),
        (12, 1.92, "mean of the ratios"),
        (12, 10, "do not subtract"),
        (12, 7, "one for each round"),
    ],
)
def test_check_of_the_summary(timing, capsys, middle, ratio, says):
    assert says in verdict(capsys, timing["check_summary"], middle, ratio)


def test_the_numbers_of_the_summary_are_what_they_are_said_to_be():
    one, eight = (10, 20, 40), (20, 60, 30)
    ratios = [b / a for a, b in zip(one, eight)]
    assert statistics.median([11, 10, 90, 12, 13]) == 12 and statistics.mean([11, 10, 90, 12, 13]) == 27.2
    assert statistics.median(ratios) == 2 and round(statistics.mean(ratios), 2) == 1.92
    assert statistics.median(eight) / statistics.median(one) == 1.5


def stopwatch(*, warm=1, summary=statistics.median, looks=True, count_warm=False, factor=1, more=0):
    def timed(work, clock, runs):
        taken = []
        for n in range(warm + runs + more):
            begin = clock()
            if looks:
                work()
            after = clock()
            if not looks:
                work()
            if n >= warm or count_warm:
                taken.append(factor * (after - begin))
        return summary(taken)

    return timed


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"warm": 0}, "run it once more at the start"),
        ({"summary": statistics.mean}, "that is the mean; "),
        ({"summary": sum}, "all five together"),
        ({"summary": lambda taken: taken[0]}, "a single run"),
        ({"summary": lambda taken: taken[0], "count_warm": True}, "the first run alone"),
        ({"summary": statistics.mean, "count_warm": True}, "mean of six runs"),
        ({"count_warm": True}, "median of six runs"),
        ({"looks": False}, "before the work and after it"),
        ({"factor": 1000}, "already shows milliseconds"),
        ({"more": 4}, "more than seven times"),
        ({"summary": max}, "is not right"),
    ],
)
def test_check_of_the_stopwatch(timing, capsys, how, says):
    assert says in verdict(capsys, timing["check_timed"], stopwatch(**how))


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((2.375, 80.0), "right"),
        ((38.0, 80.0), "divide by the passes"),
        ((2.375, 1 / 80), "not time per work"),
        ((80.0, 2.375), "changed places"),
        ((0.0, 4.0), "left out the start"),
        ((2.5, 80.0), "take it off"),
        ((1.0, 1.0), "not right"),
    ],
)
def test_check_of_the_machine(timing, capsys, answer, says):
    assert says in verdict(capsys, timing["check_machine"], lambda passes, less, more: answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda A, U, pauses: None, "no answer yet"),
        (lambda A, U, pauses: A + max(0, U - min(pauses)), "right"),
        (lambda A, U, pauses: A + U, "hides as much"),
        (lambda A, U, pauses: A + U - min(pauses), "no more than the update"),
        (lambda A, U, pauses: A + max(0, U - max(pauses)), "after the shortest pause"),
        (lambda A, U, pauses: max(0, U - min(pauses)), "the answer itself"),
        (lambda A, U, pauses: A, "what the pause does not hide"),
        (lambda A, U, pauses: 1.0, "makes it largest"),
    ],
)
def test_check_of_the_longest_wait(timing, capsys, answer, says):
    assert says in verdict(capsys, timing["check_wait"], answer)


def test_checks_of_the_stopwatch_know_no_answer(timing, capsys):
    assert "no answer yet" in verdict(capsys, timing["check_timed"], lambda work, clock, runs: None)


def test_published_solutions_of_the_latency_pass(timing, capsys):
    for function, check in (("timed", "check_timed"), ("start_and_speed", "check_machine"), ("longest_wait", "check_wait")):
        solved = run([published("constant-latency", function)], statistics=statistics)
        assert verdict(capsys, timing[check], solved[function]) == "right\n"
