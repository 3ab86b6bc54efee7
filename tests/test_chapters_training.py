"""The checks beside the exercises of the chapters on training a memory: each known mistake gets its own sentence."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from test_chapters import cells, published, run, verdict
from torch import nn

IMITATION, AWARE = "memory-attention-pretraining", "memory-aware-training"


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


# ------------------------------------------------------------------------------------------------ Memory-aware training
@pytest.fixture(scope="module")
def cutting():
    """The names that the checks find when a reader runs them."""
    chapter = cells(AWARE)
    names = run([chapter["by-loop"].split("\n\n\n")[0], chapter["class-code"].split("\n\n\n")[0]], torch=torch, nn=nn)
    return run([chapter["checks"]], **names)


def test_the_gradients_of_the_exercise_are_those_of_autograd(cutting):
    memory = cutting["OneNumber"]([1.0, 1.0, 1.0, 1.0], g=0.25)
    (free,), (cut,) = (torch.autograd.grad(memory(k)[3], memory.writes) for k in (None, 2))
    assert (free[0].item(), cut[0].item()) == (9 / 64, 0.0)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((9 / 64, 0.0), "right"),
        ((9 / 64, 9 / 64), "was left out"),
        ((3 / 16, 0.0), "one update too few"),
        ((0.0, 9 / 64), "changed places"),
        ((9 / 16, 0.0), "enters with its gate"),
        ((1 / 64, 0.0), "leaves 1 - g"),
        ((1.0, 1.0), "not right"),
    ],
)
def test_check_of_the_gradients(cutting, capsys, answer, says):
    assert says in verdict(capsys, cutting["check_gradient"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda events, k: None, "no answer yet"),
        (lambda events, k: [0 if n == 0 else n if k is None else (n - 1) % k + 1 for n in range(events)], "right"),
        (lambda events, k: [n if k is None else min(n, k) for n in range(events)], "moves along"),
        (lambda events, k: [n % (k or events) for n in range(events)], "right before a cut"),
        (lambda events, k: [n + 1 if k is None else n % k + 1 for n in range(events)], "BEFORE its event"),
        (lambda events, k: list(range(events)), "nothing is cut"),
        (lambda events, k: [7] * events, "is not"),
    ],
)
def test_check_of_the_reach(cutting, capsys, answer, says):
    assert says in verdict(capsys, cutting["check_reached"], answer)


def summed(memory, k, *, cut="before", late=False):
    m, total = torch.zeros(()), torch.zeros(())
    for n, u in enumerate(memory.writes):
        total = total if late else total + m**2
        if cut == "before" and k is not None and n > 0 and n % k == 0 or cut == "one early" and k is not None and (n + 1) % k == 0:
            m = m.detach()
        m = (1 - memory.g) * m + memory.g * u
        if cut == "after" and k is not None:
            m = m.detach()
        total = total + m**2 if late else total
    return total


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda memory, k: None, "no answer yet"),
        (summed, "right"),
        (lambda memory, k: summed(memory, k, late=True), "the value changed"),
        (lambda memory, k: summed(memory, k, cut="after"), "no gradient is left"),
        (lambda memory, k: summed(memory, None), "nothing is cut"),
        (lambda memory, k: summed(memory, k, cut="one early"), "in another place"),
    ],
)
def test_check_of_the_cut_sum(cutting, capsys, answer, says):
    assert says in verdict(capsys, cutting["check_sum"], answer)


def test_published_solutions_of_the_cut_pass(cutting, capsys):
    for function, check in (("reached", "check_reached"), ("answer_sum", "check_sum")):
        solved = run([published(AWARE, function)], torch=torch)
        assert verdict(capsys, cutting[check], solved[function]) == "right\n"
