"""The checks beside the exercises of "Experts": each known mistake gets its own sentence, the published solution passes."""

import math

import pytest
import torch
from test_chapters import cells, published, run, verdict


@pytest.fixture(scope="module")
def checks():
    return run([cells("experts")["checks"]], torch=torch, math=math)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.625, 0.375), "right\n"),
        ((0.5, 0.3), "divide them by the sum"),
        ((0.5, 0.5), "plain mean"),
        ((0.375, 0.625), "the larger weight"),
        ((5 / 7, 2 / 7), "the first and the LAST"),
        ((0.2, 0.5, 0.3), "you gave 3"),
        ((0.7, 0.3), "not right"),
    ],
)
def test_check_of_the_weights(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_route"], answer)


def one(D, F):
    return 2 * F * (D + 1) + D * (F + 1)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda D, E, k, F, s: None, "no answer yet"),
        (lambda D, E, k, F, s: D * E + (k + s) * one(D, F), "right\n"),
        (lambda D, E, k, F, s: D * E + (E + s) * one(D, F), "the total"),
        (lambda D, E, k, F, s: (k + s) * one(D, F), "the router is missing"),
        (lambda D, E, k, F, s: D * k + (k + s) * one(D, F), "looks at all E"),
        (lambda D, E, k, F, s: D * E + (k + s) * 3 * D * F, "the biases are missing"),
        (lambda D, E, k, F, s: D * E + (k + s) * (F * (D + 1) + D * (F + 1)), "2 F outputs"),
        (lambda D, E, k, F, s: D * E + k * one(D, F), "the shared experts are missing"),
        (lambda D, E, k, F, s: 1, "1 is not"),
    ],
)
def test_check_of_the_active_parameters(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_active"], answer)


def share(chosen, E=5):
    return chosen.flatten().bincount(minlength=E) / chosen.numel()


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda p, c, t: None, "no answer yet"),
        (lambda p, c, t: 5 * (share(c[t]) * p[t].mean(0)).sum(), "right\n"),
        (lambda p, c, t: 5 * (share(c) * p.mean(0)).sum(), "both factors"),
        (lambda p, c, t: 5 * (share(c) * p[t].mean(0)).sum(), "counted in the load"),
        (lambda p, c, t: 5 * (share(c[t]) * p.mean(0)).sum(), "counted in the mean"),
        (lambda p, c, t: (share(c[t]) * p[t].mean(0)).sum(), "the factor E"),
        (lambda p, c, t: 10 * (share(c[t]) * p[t].mean(0)).sum(), "add up to k"),
        (lambda p, c, t: 5 / 2 * p.gather(1, c)[t].sum(1).mean(), "the published loss"),
        (lambda p, c, t: 5 * (p[t].mean(0) ** 2).sum(), "uses P twice"),
        (lambda p, c, t: share(c[t]) * p[t].mean(0), "a single number"),
        (lambda p, c, t: p.sum(), "is not"),
    ],
)
def test_check_of_the_balance(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_balance"], answer)


def test_published_solutions_pass(checks, capsys):
    for name in ("active", "balance"):
        assert verdict(capsys, checks[f"check_{name}"], run([published("experts", name)])[name]) == "right\n"
    assert "two_weights = (0.625, 0.375)" in cells("experts")["solution-1"]
