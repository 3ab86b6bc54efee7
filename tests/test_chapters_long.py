"""The checks beside the exercises of "Long dependencies" and "Continual learning": each known mistake gets its own sentence."""

import math

import pytest
import torch
from test_chapters import bits, cells, published, run, verdict

from rxt_lite.experiments.continual import measures


@pytest.fixture(scope="module")
def reaching():
    return run([cells("long-dependencies")["checks"]], torch=torch, math=math)


# ------------------------------------------------------------------------------------------------------ long dependencies
@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (3 * (5 - 1), "right\n"),
        (3 * 5, "4 steps, not 5"),
        (5 - 1, "that is one layer"),
        (3 * (5 - 1) + 1, "how far BACK"),
        (5, "that is the window"),
        (2 * (5 - 1), "two layers"),
        ((5 - 1) ** 3, "they do not multiply"),
        (99, "99 is not right"),
    ],
)
def test_check_of_the_reach(reaching, capsys, answer, says):
    assert says in verdict(capsys, reaching["check_reach"], answer)


def share_where(far, nothing=None):
    def share(right, distance, reach):
        of = [ok for ok, d in zip(right, distance) if far(d, reach)]
        return sum(of) / len(of) if of else nothing

    return share


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda right, distance, reach: "?", "no answer yet"),
        (share_where(lambda d, reach: d > reach), "right\n"),
        (share_where(lambda d, reach: d >= reach), "exactly AT the reach"),
        (share_where(lambda d, reach: True), "all questions"),
        (share_where(lambda d, reach: d <= reach), "WITHIN the reach"),
        (share_where(lambda d, reach: d > reach, nothing=0.0), "return None, not a number"),
        (lambda right, distance, reach: sum(ok for ok, d in zip(right, distance) if d > reach) / len(right), "not by that of all"),
        (lambda right, distance, reach: sum(ok for ok, d in zip(right, distance) if d > reach), "not which share"),
        (lambda right, distance, reach: (lambda of: sum(of) / len(of))([ok for ok, d in zip(right, distance) if d > reach]),
         "do not divide by 0"),
        (lambda right, distance, reach: None, "without any question"),
        (lambda right, distance, reach: 0.6, "0.6 is not"),
    ],
)
def test_check_of_the_share_beyond(reaching, capsys, answer, says):
    assert says in verdict(capsys, reaching["check_beyond"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda read: None, "no answer yet"),
        (lambda read: 1 - 2 ** bits(read) / 4, "right\n"),
        (lambda read: 1 - bits(read, torch.log).exp() / 4, "right\n"),
        (lambda read: 2 ** bits(read) / 4, "a density: 1 minus it"),
        (lambda read: 1 - bits(read) / 4, "not a number of slots yet"),
        (lambda read: 1 - bits(read) / 2, "normalised entropy"),
        (lambda read: 1 - 2 ** bits(read, torch.log) / 4, "the base is e"),
        (lambda read: 1 - bits(read).exp() / 4, "the base is 2"),
        (lambda read: (read > 0.01).float().mean(-1), "counts 0.011 like 1"),
        (lambda read: (read <= 0.01).float().mean(-1), "a threshold counts"),
        (lambda read: 1 - 2 ** -bits(read) / 4, "the sign of the entropy"),
        (lambda read: 1 - 2 ** -(read * read.log2()).sum(-1) / 4, "not a number"),
        (lambda read: (1 - 2 ** bits(read) / 4).mean(), "one number for each read"),
        (lambda read: torch.full((3,), 7.0), "is not right"),
    ],
)
def test_check_of_the_sparsity(reaching, capsys, answer, says):
    assert says in verdict(capsys, reaching["check_sparsity"], answer)


def test_published_solutions_of_long_dependencies_pass(reaching, capsys):
    for function, check in (("share_beyond", "check_beyond"), ("sparsity", "check_sparsity")):
        solved = run([published("long-dependencies", function)], math=math, torch=torch)
        assert verdict(capsys, reaching[check], solved[function]) == "right\n"


def test_what_exercise_four_says_of_two_layers_is_so():
    """Slots plus reach, and with a window of one the slots alone: asked of the network as a reader would ask."""
    chapter = cells("long-dependencies")
    names = run([chapter["imports"], "SHAPE = SIZES['cpu'].config", chapter["poke"]], PROFILE="ci")
    assert max(names["changed"](names["with_bank"](n_layers=2))) == 9 + 2 * 3
    names["with_bank"].__globals__["MemNet"], bank = (lambda config: bank(names["replace"](config, window=1))), names["MemNet"]
    assert max(names["changed"](names["with_bank"]())) == 9
    assert max(names["changed"](names["controller_alone"](3, 5))) == 12


# ------------------------------------------------------------------------------------------------------ continual learning
@pytest.fixture(scope="module")
def learning():
    return run([cells("continual-learning")["checks"]], torch=torch, math=math)


@pytest.mark.parametrize(
    "bwt, lost, says",
    [
        (None, None, "no answer yet"),
        (-0.8 / 3, 0.3, "right\n"),
        (-0.267, 0.3, "right\n"),
        (-0.8 / 4, 0.3, "BWT: divide by the three"),
        (-0.8, 0.3, "BWT: this is the sum"),
        (0.8 / 3, 0.3, "BWT: the end less the beginning"),
        (-0.3, 0.3, "BWT: compare with the diagonal"),
        (-0.8 / 3, 0.9 / 4, "so divide by three"),
        (-0.8 / 3, 0.8 / 3, "from the BEST moment"),
        (-0.8 / 3, -0.3, "the best less the end"),
        (-0.8 / 3, 0.9, "forgetting: this is the sum"),
        (-0.8 / 3, 0.5, "0.5 is not right"),
    ],
)
def test_check_of_the_measures_by_hand(learning, capsys, bwt, lost, says):
    assert says in verdict(capsys, learning["check_hand"], bwt, lost)


def test_the_table_of_the_first_exercise_gives_its_solution():
    """Counted with the library, from the numbers that the reader sees."""
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in cells("continual-learning")["exercise-1"].splitlines()]
    R = torch.tensor([[float(number) for number in line[1:]] for line in lines if line[0] in list("1234") and len(line) == 5])
    found = measures(R, torch.full((4,), 0.1))
    assert R.shape == (4, 4) and (found["bwt"], found["forgetting"]) == pytest.approx((-0.8 / 3, 0.3), abs=1e-6)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda R: None, "no answer yet"),
        (lambda R: (R[:-1, :-1].amax(0) - R[-1, :-1]).mean(), "right\n"),
        (lambda R: (R.amax(0) - R[-1])[:-1].mean(), "the last row is part of your maximum"),
        (lambda R: (R[:-1].amax(0) - R[-1])[:-1].sum() / len(R), "divide by T - 1"),
        (lambda R: (R[:-1].amax(0) - R[-1]).mean(), "leave its column out"),
        (lambda R: (R.diagonal() - R[-1])[:-1].mean(), "this is -BWT"),
        (lambda R: (R[-1] - R[:-1].amax(0))[:-1].mean(), "so loss is above zero"),
        (lambda R: (R[:-1].amax(1) - R[-1, :-1]).mean(), "goes down its column"),
        (lambda R: (R[:-1].amax(0) - R[-1])[:-1].sum(), "this is the sum"),
        (lambda R: (R[:-1].amax(0) - R[-1])[:-1], "one number is wanted"),
        (lambda R: 7.0, "7.000 is not"),
    ],
)
def test_check_of_forgetting(learning, capsys, answer, says):
    assert says in verdict(capsys, learning["check_forgetting"], answer)


def drawn(among, passed=lambda place, slots: None):
    def place(m, slots, dice):
        if m < slots:
            return m
        at = dice(among(m, slots))
        return at if at < slots else passed(at, slots)

    return place


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda m, slots, dice: "?", "no answer yet"),
        (drawn(lambda m, slots: m + 1), "right\n"),
        (drawn(lambda m, slots: slots), "not among the slots"),
        (drawn(lambda m, slots: m), "items count from 0"),
        (drawn(lambda m, slots: m + 2), "not among the 4 and 8"),
        (drawn(lambda m, slots: m + 1, passed=lambda at, slots: at % slots), "passed over: return None"),
        (lambda m, slots, dice: m % slots, "no draw was made"),
        (lambda m, slots, dice: dice(m + 1), "while slots are empty"),
    ],
)
def test_check_of_the_place(learning, capsys, answer, says):
    assert says in verdict(capsys, learning["check_place"], answer)


def test_published_solutions_of_continual_learning_pass(learning, capsys):
    for function, check in (("forgetting", "check_forgetting"), ("place", "check_place")):
        solved = run([published("continual-learning", function)], math=math, torch=torch)
        assert verdict(capsys, learning[check], solved[function]) == "right\n"
