"""The checks beside the exercises of "Inside the slots": each known mistake gets its own sentence."""

import math
import random

import pytest
import torch
from test_chapters import bits, cells, published, run, verdict

CHAPTER = "inside-the-slots"


@pytest.fixture(scope="module")
def watching():
    """The names that the checks find when a reader runs them."""
    chapter = cells(CHAPTER)
    names = run([chapter["km-loop"]], torch=torch)
    source = chapter["breaks-code"]
    names = run([source[source.index("def at(") : source.index("drawn =")]], **names)
    return run([chapter["checks"]], **names | {"math": math, "random": random})


# --------------------------------------------------------------------------------------------------- what the text says
def test_the_cosines_of_the_first_exercise_give_its_solution():
    """Counted with the loop of the chapter, not with the numbers of its check."""
    chapter = cells(CHAPTER)
    text = chapter["exercise-1"]
    cosine = [[float(c)] for c in text[text.index("event by event: ") + 16 : text.index(". List its")].split(", ")]
    loop = run([chapter["by-loop"].split("\n\n\n")[0]], math=math)["contents_by_loop"]
    found = loop(cosine, [[[1.0]]] * len(cosine))
    assert [(lived, ended) for _, lived, ended, _ in found] == [(2, True), (1, True), (3, False)]


def test_the_table_of_the_five_contents_is_the_product(watching):
    lines = cells(CHAPTER)["survival"].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    table = {int(row[0]): (int(row[1]), int(row[2])) for row in rows if row[0].isdigit()}
    alive, curve = 1.0, {}
    for age, (at_risk, ended) in table.items():
        alive *= 1 - ended / at_risk
        curve[age] = alive
    five = [(1, True), (2, True), (2, False), (3, True), (4, False)]
    assert curve == pytest.approx(watching["kaplan_meier"](five)) and curve[3] == pytest.approx(3 / 10)


def test_a_lottery_lives_as_long_as_it_should(watching):
    """The truth of "What breaks" is (1 - 1/S)^k; with many conversations the estimate comes to it."""
    source = cells(CHAPTER)["breaks-code"]
    lottery = run([source[: source.index("def at(")]], random=random)["lottery"]
    curve = watching["kaplan_meier"](lottery(3000, 30, 6, seed=5))
    for k in (2, 5, 10):
        assert curve[k] == pytest.approx((5 / 6) ** k, abs=0.01)


# ------------------------------------------------------------------------------------------------------------ the checks
@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ([(2, True), (1, True), (3, False)], "right"),
        ([(2, True), (1, True)], "censored, not left out"),
        ([(1, True), (2, True), (1, True), (3, False)], "written by no event"),
        ([(2, True), (1, True), (3, True)], "the conversation did"),
        ([(2, True), (1, True), (4, False)], "7 - 4 = 3"),
        ([(1, True), (3, True), (4, True)], "the events that write"),
        ([(9, True)], "not right"),
    ],
)
def test_check_of_the_lives(watching, capsys, answer, says):
    assert says in verdict(capsys, watching["check_lives"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda curve: "?", "no answer yet"),
        (lambda curve: next((a for a in sorted(curve) if curve[a] <= 0.5), None), "right"),
        (lambda curve: next((a for a in sorted(curve) if curve[a] < 0.5), None), "at one half exactly"),
        (lambda curve: max(a for a in curve if curve[a] > 0.5), "last age with more than half"),
        (lambda curve: max(curve) if min(curve.values()) > 0.5 else next(a for a in sorted(curve) if curve[a] <= 0.5), "return None"),
        (lambda curve: 99, "is not"),
    ],
)
def test_check_of_the_median(watching, capsys, answer, says):
    assert says in verdict(capsys, watching["check_median"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda read: None, "no answer yet"),
        (lambda read: 2 ** bits(read).mean(), "right"),
        (lambda read: math.exp(bits(read, torch.log).mean()), "right"),
        (lambda read: bits(read).mean(), "in bits; the number"),
        (lambda read: bits(read, torch.log).mean(), "in nats; the number"),
        (lambda read: math.exp(bits(read).mean()), "the base is 2"),
        (lambda read: 2 ** bits(read, torch.log).mean(), "the base is e"),
        (lambda read: 2 ** bits(read.mean(0)), "entropy of the mean"),
        (lambda read: (2 ** bits(read)).mean(), "mean of the numbers"),
        (lambda read: 2 ** bits(read), "one number for each token"),
        (lambda read: 2 ** -bits(read).mean(), "the sign is missing"),
        (lambda read: 2 ** -(read * read.log2()).sum(-1).mean(), "not a number"),
        (lambda read: 4.0, "is not"),
    ],
)
def test_check_of_the_effective_slots(watching, capsys, answer, says):
    assert says in verdict(capsys, watching["check_effective"], answer)


def bootstrap(draw, low=0.025, high=0.975, turn=False, less=0):
    def estimates(conversations, estimate, draws, dice):
        found = sorted(estimate(draw(conversations, dice)) for _ in range(draws - less))
        ends = found[round(low * draws)], found[min(len(found), round(high * draws)) - 1]
        return ends[::-1] if turn else ends

    return estimates


def by_conversation(conversations, dice, more=0):
    return [life for of in dice.choices(conversations, k=len(conversations) + more) for life in of]


def by_life(conversations, dice):
    lives = [life for of in conversations for life in of]
    return dice.choices(lives, k=len(lives))


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda conversations, estimate, draws, dice: None, "no answer yet"),
        (bootstrap(by_conversation), "right"),
        (bootstrap(by_life), "single lives were drawn"),
        (bootstrap(lambda c, dice: [life for of in dice.sample(c, len(c)) for life in of]), "WITH replacement"),
        (bootstrap(by_conversation, low=0.0, high=1.0), "the whole range"),
        (bootstrap(by_conversation, turn=True), "changed places"),
        (bootstrap(by_conversation, less=100), "draw anew"),
        (bootstrap(lambda c, dice: dice.choices(c, k=len(c))), "these are no lives"),
        (bootstrap(by_conversation, low=0.25, high=0.75), "not right"),
    ],
)
def test_check_of_the_bootstrap(watching, capsys, answer, says):
    assert says in verdict(capsys, watching["check_bootstrap"], answer)


def test_published_solutions_of_the_slots_pass(watching, capsys):
    for function, check in (("median_lifetime", "check_median"), ("effective_slots", "check_effective"), ("bootstrap", "check_bootstrap")):
        solved = run([published(CHAPTER, function)], math=math)
        assert verdict(capsys, watching[check], solved[function]) == "right\n"
