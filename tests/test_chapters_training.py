"""The checks beside the exercises of the chapters on training a memory: each known mistake gets its own sentence."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from test_chapters import cells, published, run, verdict

IMITATION = "memory-attention-pretraining"


# ---------------------------------------------------------------------------------------- Memory-attention pre-training
@pytest.fixture(scope="module")
def imitating():
    """The names that the checks find when a reader runs them."""
    chapter = cells(IMITATION)
    names = run([chapter["label-loop"]], math=math)
    return run([chapter["checks"]], **names | {"torch": torch, "F": F, "itertools": itertools})


def test_the_best_mark_is_what_no_direction_beats():
    """The formula of the chapter against many random directions, for tokens and slots that are not at right angles."""
    source = cells(IMITATION)["bound"]
    best_mark = run([source[: source.index("tokens = ")]], F=F)["best_mark"]
    torch.manual_seed(0)
    before, event, a, w = torch.randn(1, 3), torch.randn(5, 3), 0.3, 0.7
    labels = a * before + w * event
    tried = F.cosine_similarity(torch.randn(100_000, 1, 3), labels, dim=-1).mean(-1)
    bound = best_mark(before, event, a, w).item()
    assert tried.max() <= bound + 1e-6 and tried.max() > bound - 1e-3


def test_the_weights_of_the_chapter_are_the_librarys(imitating):
    from rxt_lite.training.pretraining import published_weights

    assert all(imitating["weights_of"](n) == pytest.approx(published_weights(n)) for n in range(15))


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (1 / 3, "right"),
        (1.0, "know their places"),
        (1 / 9, "a single token"),
        (3.0, "upside down"),
        (0.0, "not zero"),
        (1 / 81, "take the root"),
        (0.707, "for two tokens"),
        (0.5, "not right"),
    ],
)
def test_check_of_the_best_of_nine(imitating, capsys, answer, says):
    assert says in verdict(capsys, imitating["check_nine"], answer)


def weights(n, *, first=0.9, floor=0.05, start=0.5, turn=False, keep=None):
    w = first if n == 0 and first else max(floor, start - 0.05 * n)
    pair = (1 - w if keep is None else keep, w)
    return pair[::-1] if turn else pair


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"turn": True}, "changed places"),
        ({"first": None}, "the first update takes 0.9"),
        ({"floor": -9}, "never less than 0.05"),
        ({"floor": 0.0}, "never less than 0.05"),
        ({"start": 0.9}, "only the first update"),
        ({"start": 0.55}, "counts updates from 0"),
        ({"keep": 1.0}, "a is 1 - w"),
        ({"start": 0.4}, "is not"),
    ],
)
def test_check_of_the_weights(imitating, capsys, how, says):
    assert says in verdict(capsys, imitating["check_weights"], lambda n: weights(n, **how))


def table(slots, tokens):
    return F.cosine_similarity(slots[:, None], tokens[None], dim=-1)


def orders(slots, tokens):
    cosines = table(slots, tokens)
    return [float(sum(cosines[i, j] for i, j in enumerate(order))) for order in itertools.permutations(range(len(slots)))]


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda s, t: None, "no answer yet"),
        (lambda s, t: max(orders(s, t)) / 3, "right"),
        (lambda s, t: table(s, t).max(1).values.mean(), "took the same token"),
        (lambda s, t: table(s, t).max(0).values.mean(), "its favourite slot"),
        (lambda s, t: table(s, t).diagonal().mean(), "slot i with token i"),
        (lambda s, t: max(orders(s, t)), "this is the sum"),
        (lambda s, t: sum(orders(s, t)) / 18, "mean over all orders"),
        (lambda s, t: min(orders(s, t)) / 3, "the worst order"),
        (lambda s, t: -max(orders(s, t)) / 3, "this is the loss"),
        (lambda s, t: 7.0, "is not"),
    ],
)
def test_check_of_the_matching(imitating, capsys, answer, says):
    assert says in verdict(capsys, imitating["check_matched"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda N: None, "no answer yet"),
        (lambda N: [sum(1 / (n + 1) for n in range(k, N)) / N for k in range(N)], "right"),
        (lambda N: [1 / N] * N, "only age 0"),
        (lambda N: [sum(1 / (n + 1) for n in range(k, N)) for k in range(N)], "add up to 1"),
        (lambda N: [2 * (N - k) / N / (N + 1) for k in range(N)], "n comes first"),
        (lambda N: [sum(1 / (n + 1) for n in range(k, N)) / N for k in range(N)][::-1], "wrong order"),
        (lambda N: [sum(1 / n for n in range(max(1, k), N)) / N for k in range(N)], "there are n + 1"),
        (lambda N: [1.0], "shares are wanted"),
        (lambda N: [0.0] * N, "is not"),
    ],
)
def test_check_of_the_ages(imitating, capsys, answer, says):
    assert says in verdict(capsys, imitating["check_ages"], answer)


def test_published_solutions_of_the_imitation_pass(imitating, capsys):
    for function, check in (("weights", "check_weights"), ("matched_cosine", "check_matched"), ("share_of_ages", "check_ages")):
        solved = run([published(IMITATION, function)], F=F, itertools=itertools)
        assert verdict(capsys, imitating[check], solved[function]) == "right\n"
