"""The checks beside the exercises of "The asynchronous cycle": each known mistake gets its own sentence."""

import pytest
import torch
from test_chapters import cells, published, run, verdict

from rxt_lite.config import EOS

CHAPTER = "asynchronous-cycle"


@pytest.fixture(scope="module")
def cycle():
    """The names that the checks find when a reader runs them."""
    chapter = cells(CHAPTER)
    return run([chapter["timeline-loop"], chapter["checks"]], torch=torch, EOS=EOS)


def changed(function: str, old: str, new: str, **names):
    """The published solution with one line made wrong."""
    source = published(CHAPTER, function)
    assert source.count(old) == 1, old
    return run([source.replace(old, new)], EOS=EOS, **names)[function]


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (6, "right"),
        (2, "left out the update"),
        (7, "forgot the pause"),
        (4, "the answer itself"),
        (8, "the user's own time"),
        (1, "not right"),
    ],
)
def test_check_of_the_wait(cycle, capsys, answer, says):
    assert says in verdict(capsys, cycle["check_wait"], answer)


def test_the_wait_of_the_first_exercise_is_what_the_loop_says(cycle):
    assert cycle["asynchronous"]([2, 2], [5, 5], [1, 0])[1] == 6


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("if not said:", "if True:", "no answer yet"),
        ("[*query, *said, *closing]", "[*query, *said, *closing]  # as it is", "right"),
        ("[*query, *said, *closing]", "[*said, *closing]", "the query is missing"),
        ("[*query, *said, *closing]", "[*query, *said]", "not closed"),
        ("[] if said[-1] == EOS else [EOS]", "[EOS]", "EOS twice"),
        ("        return None\n", "        return list(query)\n", "nothing was heard"),
        ("[*query, *said, *closing]", "[*said, *query, *closing]", "not right"),
    ],
)
def test_check_of_the_event(cycle, capsys, old, new, says):
    assert says in verdict(capsys, cycle["check_event"], changed("event_of", old, new))


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("return waits", "return None", "no answer yet"),
        ("return waits", "return waits  # as it is", "right"),
        ("max(now, before_last) + A", "max(now, last) + A", "waits for the last update"),
        ("max(now, before_last) + A", "now + A", "never waits"),
        ("max(over, last) + U", "over + U", "two updates run at once"),
        ("waits.append(over - now)", "waits.append(over)", "not right"),
    ],
)
def test_check_of_the_impatient_user(cycle, capsys, old, new, says):
    assert says in verdict(capsys, cycle["check_waits"], changed("waits_stale", old, new))


def two_of_one(waiting, most):
    batch, waiting[:] = waiting[:3], waiting[3:]
    return batch


def newest_first(waiting, most):
    batch = list(dict(waiting).items())[:most]
    waiting[:] = [pair for pair in waiting if pair not in batch]
    return batch


def from_the_back(waiting, most):
    batch = [("b", 1), ("c", 1)]
    waiting[:] = [pair for pair in waiting if pair not in batch]
    return batch


def forgets_the_rest(waiting, most):
    batch = waiting[:2]
    waiting.clear()
    return batch


def turns_the_rest_around(waiting, most):
    batch = waiting[:2]
    waiting[:] = waiting[:1:-1]
    return batch


def always_the_first_two(waiting, most):
    batch, waiting[:] = waiting[:2], waiting[2:]
    return batch


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda waiting, most: None, "no answer yet"),
        (two_of_one, "two events of one conversation"),
        (newest_first, "the order is wrong"),
        (lambda waiting, most: waiting[:2], "still waiting"),
        (forgets_the_rest, "an event is lost"),
        (from_the_back, "begin at the front"),
        (turns_the_rest_around, "keep its order"),
        (always_the_first_two, "one event of each"),
    ],
)
def test_check_of_the_batch(cycle, capsys, answer, says):
    assert says in verdict(capsys, cycle["check_take"], answer)


def test_check_of_a_batch_that_is_too_large(cycle, capsys):
    assert "too large" in verdict(capsys, cycle["check_take"], changed("take", "[:most]", ""))


@pytest.mark.parametrize("check, function", [("check_event", "event_of"), ("check_waits", "waits_stale"), ("check_take", "take")])
def test_published_solutions_of_the_asynchronous_cycle_pass(cycle, capsys, check, function):
    solved = run([published(CHAPTER, function)], EOS=EOS)
    assert verdict(capsys, cycle[check], solved[function]) == "right\n"
