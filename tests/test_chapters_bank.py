"""The checks beside the exercises of "A bank of slots": each known mistake gets its own sentence."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_chapters import cells, published, run, verdict


# ------------------------------------------------------------------------------------------------------ A bank of slots
@pytest.fixture(scope="module")
def bank():
    """The names that the checks find when a reader runs them."""
    return run([cells("memory-bank")["checks"]], math=math, torch=torch, F=F)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((4.0, 4.0), "right"),
        ((4.0, 3.0), "the second feature is 0"),
        ((5.0, 6.0), "opens the adding too"),
        ((2.0, 6.0), "one half, not 1"),
        ((7.0, 3.0), "changed places"),
        ((3.0, 2.0), "still to be added"),
        ((7.0, 4.0), "the adding alone"),
        ((6.0, 2.0), "not 0"),
        ((9.0, 9.0), "not right"),
    ],
)
def test_check_of_the_slot(bank, capsys, answer, says):
    assert says in verdict(capsys, bank["check_slot"], answer)


def parts(values, amount, erase, new):
    out = amount[:, :, None] * erase[:, None]
    return (1 - out).prod(0), out, amount.T @ new


def in_turn(values, amount, erase, new):
    for a, e, v in zip(amount, erase, new):
        values = values * (1 - a[:, None] * e) + a[:, None] * v
    return values


def in_place(values, amount, erase, new):
    left, _, add = parts(values, amount, erase, new)
    return values.mul_(left).add_(add)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda *w: None, "no answer yet"),
        (lambda *w: w[0] * parts(*w)[0] + parts(*w)[2], "right"),
        (in_turn, "one head after the other"),
        (lambda *w: in_turn(w[0], *(part.flip(0) for part in w[1:])), "the last head first"),
        (lambda *w: w[0] * (1 - parts(*w)[1].sum(0)) + parts(*w)[2], "1 minus a sum"),
        (lambda *w: w[0] * (1 - parts(*w)[1].mean(0)) + parts(*w)[2] / 3, "the mean of the heads"),
        (lambda *w: w[0] * (1 - w[2]).prod(0) + parts(*w)[2], "missing in the erase"),
        (lambda *w: w[0] + parts(*w)[2], "nothing is erased"),
        (lambda *w: w[0] * parts(*w)[0], "are not added"),
        (lambda *w: w[0] * parts(*w)[0] + w[3].sum(0), "missing in the adding"),
        (lambda *w: (w[0] + parts(*w)[2]) * parts(*w)[0], "first erase, then add"),
        (in_place, "make new ones"),
        (lambda *w: w[0][0], "have the shape"),
        (lambda *w: 2 * w[0], "not right"),
    ],
)
def test_check_of_many_heads(bank, capsys, answer, says):
    assert says in verdict(capsys, bank["check_write_heads"], answer)


SIGMOID = 1 / (1 + math.exp(-0.99))


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.729, 0.729, 0.729), "right"),
        ((SIGMOID, SIGMOID**10, SIGMOID**100), "what the words promise"),
        ((0.99, 0.904, 0.366), "measure, not compute"),
        ((0.99, 0.99, 0.99), "goes into the sigmoid"),
        ((1.0, 1.0, 1.0), "after its first line"),
        ((0.5,), "not right"),
    ],
)
def test_check_of_the_measured_lengths(bank, capsys, answer, says):
    assert says in verdict(capsys, bank["check_measured"], answer)


def fade(keep):
    return keep.sigmoid().unsqueeze(-1)


def turned(values, keep):
    return values.roll(1, dims=-1) * fade(keep)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda values, keep: None, "no answer yet"),
        (lambda values, keep: values * fade(keep), "right"),
        (lambda values, keep: F.normalize(values * fade(keep), dim=-1), "undoes all of it"),
        (lambda values, keep: F.normalize(values, dim=-1) * fade(keep), "still a constant"),
        (lambda values, keep: values * fade(keep) ** 2, "twice"),
        (lambda values, keep: values * keep.unsqueeze(-1), "its sigmoid"),
        (lambda values, keep: values * (1 - fade(keep)), "what is LEFT"),
        (lambda values, keep: 1.0 * values, "nothing fades"),
        (lambda values, keep: values * fade(keep.detach()), "no gradient"),
        (turned, "the directions have changed"),
        (lambda values, keep: values * keep.sigmoid(), "an error"),
        (lambda values, keep: values.mul_(fade(keep.detach())), "that came in"),
        (lambda values, keep: values - 0.01, "not right"),
    ],
)
def test_check_of_the_repaired_decay(bank, capsys, answer, says):
    assert says in verdict(capsys, bank["check_repaired"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda left, decay: None, "no answer yet"),
        (lambda left, decay: math.ceil(math.log(left) / math.log(decay) - 1e-9), "right"),
        (lambda left, decay: math.floor(math.log(left) / math.log(decay)), "one too few"),
        (lambda left, decay: math.floor(math.log(left) / math.log(decay)) + 2, "one too many"),
        (lambda left, decay: math.log(left) / math.log(decay), "round up"),
        (lambda left, decay: math.ceil((1 - left) / (1 - decay)), "no straight line"),
        (lambda left, decay: math.ceil(math.log(decay) / math.log(left)), "changed places"),
        (lambda left, decay: math.ceil(math.log(left) / math.log(1 - decay)), "not what goes"),
        (lambda left, decay: 1000, "is not"),
    ],
)
def test_check_of_the_steps(bank, capsys, answer, says):
    assert says in verdict(capsys, bank["check_steps_until"], answer)


def test_the_described_step_has_the_lengths_of_its_solution(bank, capsys):
    """Measured with the chapter's own function and the solution that is printed below it."""
    source = cells("memory-bank")["your-lengths"]
    solution = cells("memory-bank")["solution-3"].split("```python\n")[1].split("```")[0]
    names = run([source.split("lengths = None")[0], solution], torch=torch, F=F)
    assert verdict(capsys, bank["check_measured"], names["lengths"]) == "right\n"


def test_published_solutions_of_the_bank_pass(bank, capsys):
    checks = {"write_heads": "check_write_heads", "repaired_step": "check_repaired", "steps_until": "check_steps_until"}
    for function, check in checks.items():
        solved = run([published("memory-bank", function)], math=math, torch=torch, F=F)
        assert verdict(capsys, bank[check], solved[function]) == "right\n"
