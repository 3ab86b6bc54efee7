"""What two chapters promise each other, and the checks beside their exercises: each known mistake gets its own sentence."""

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

from rxt_lite.config import BOOK
from rxt_lite.data import world_tokenizer
from rxt_lite.experiments.intervals import wilson
from rxt_lite.models import RxT
from rxt_lite.training import answer_loss

BOOK_FOLDER = Path(__file__).resolve().parent.parent / "book"


def cells(chapter: str) -> dict[str, str]:
    return {cell.id: cell.source for cell in nbformat.read(BOOK_FOLDER / f"{chapter}.ipynb", as_version=4).cells}


def published(chapter: str, function: str) -> str:
    """The solution that defines `function`: the first such definition in a block of code in the text."""
    blocks = re.findall(r"```python\n(.*?)```", "\n".join(cells(chapter).values()), re.DOTALL)
    (block,) = [block for block in blocks if f"def {function}(" in block]
    return re.match(rf"def {function}.*?(?=\n\S|\Z)", block, re.DOTALL)[0]


def run(sources: list[str], **names) -> dict:
    for source in sources:
        exec(source, names)
    return names


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RxT(replace(BOOK, vocab_size=world_tokenizer().get_vocab_size())).eval()


@pytest.fixture(scope="module")
def assembled(model):
    """The names that the checks of "The reactive transformer" find when a reader runs them."""
    chapter = cells("reactive-transformer")
    names = run([chapter[name] for name in ("imports", "dialogue", "config", "loss-in-full")], PROFILE="ci")
    return run([chapter["checks"]], **names | {"model": model, "answer_loss": answer_loss})


@pytest.fixture(scope="module")
def measured(model):
    chapter = cells("recall-by-distance")
    return run([chapter["checks"]], model=model, torch=torch, wilson=wilson)


def bits(read, log=torch.log2):
    """Entropy of each row of reads; with another `log` in its unit."""
    return -(read * log(read.clamp(min=1e-30))).sum(-1)


def verdict(capsys, check, *answer) -> str:
    capsys.readouterr()
    check(*answer)
    return capsys.readouterr().out


# ----------------------------------------------------------------------------------------------- between two chapters
def test_both_chapters_train_one_and_the_same_model():
    """Else the second trains for minutes again, or stops because a run with other settings is in the folder."""
    first, second = cells("reactive-transformer"), cells("recall-by-distance")
    for line in (r"STEPS = .*", r"RUN = .*", r'model, rows = train_on_world\(RUN, kind="rxt".*'):
        found = [re.findall(rf"^{line}$", "\n".join(chapter.values()), re.MULTILINE) for chapter in (first, second)]
        assert found[0] == found[1] and len(found[0]) == 1, line


# ------------------------------------------------------------------------------------------- The reactive transformer
D = BOOK.d_model


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (2 * 16 * D, "right"),
        (16 * D, "that is one layer"),
        (2 * 16, "the number of slots"),
        (2 * D, "left out the slots"),
        (4 * 2 * 16 * D, "those are bytes"),
        (9 * 2 * 16 * D, "not kept once per event"),
        (17, "not right"),
    ],
)
def test_check_of_the_size(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_size"], answer)


def remember_first(model, events, k, first=0):
    state = model.init_state(1)
    for n in range(first, k):
        state = model.remember(events[:, n], state)
    return state


def forgets_the_result(model, events, k):
    state = model.init_state(1)
    for n in range(k):
        model.remember(events[:, n], state)
    return state


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda model, events, k: None, "no answer yet"),
        (remember_first, "right"),
        (forgets_the_result, "still empty"),
        (lambda model, events, k: remember_first(model, events, 9), "all events"),
        (lambda model, events, k: remember_first(model, events, k + 1), "one event too few or too many"),
        (lambda model, events, k: remember_first(model, events, k - 1), "one event too few or too many"),
        (lambda model, events, k: remember_first(model, events, k, first=1), "in order"),
        (lambda model, events, k: remember_first(model, events, k)[0], f"tensor of shape (2, 1, 16, {D})"),
        (lambda model, events, k: [1, 2], "yours is <class 'list'>"),
    ],
)
def test_check_of_the_first_events(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_first_events"], answer)


def loss_variant(assembled, old, new):
    source = cells("reactive-transformer")["loss-in-full"]
    assert source.count(old) == 1
    return run([source.replace(old, new)], F=assembled["F"])["loss_in_full"]


UPDATE = "state = model.remember(tokens, state)"


@pytest.mark.parametrize(
    "new, says",
    [
        (UPDATE, "nothing is cut"),
        ("state = model.remember(tokens, state.detach())", "right"),
        ("state = model.remember(tokens, state).detach()", "no gradient reaches the memory attention"),
        ("state = state.detach()", "the value changed"),
        ("return None", "no answer yet"),
    ],
)
def test_check_of_the_cut(assembled, capsys, new, says):
    assert says in verdict(capsys, assembled["check_cut"], loss_variant(assembled, UPDATE, new))


def test_published_solutions_of_the_reactive_transformer_pass(assembled, capsys):
    solved = run([published("reactive-transformer", "memory_of_first")])
    assert verdict(capsys, assembled["check_first_events"], solved["memory_of_first"]) == "right\n"
    assert "state = model.remember(tokens, state.detach())" in cells("reactive-transformer")["solution-3"]


# ------------------------------------------------------------------------------------------------ Recall by distance
@pytest.mark.parametrize(
    "distance, seen, says",
    [
        (None, 1, "no answer yet"),
        (5, 1, "right"),
        (3, 1, "neither an answer nor"),
        (1, 1, "neither an answer nor"),
        (6, 1, "minus the turn of the telling"),
        (4, 1, "minus the turn of the telling"),
        (5, 5, "that is the distance"),
        (5, 3, "shows it again"),
        (5, 2, "not right"),
    ],
)
def test_check_of_the_distances(measured, capsys, distance, seen, says):
    assert says in verdict(capsys, measured["check_distances"], distance, seen)


def test_the_dialogue_of_the_exercise_has_these_distances():
    """Counted from the table in the text, not from what the check believes."""
    rows = re.findall(r"^\| (\d) \| (.+?) \| (.*?) ?\|$", cells("recall-by-distance")["exercise-1"], re.MULTILINE)
    turns = {int(turn): f"{query} {answer}" for turn, query, answer in rows}
    told = next(turn for turn, text in turns.items() if text.startswith("The hat is red."))
    shown = max(turn for turn, text in turns.items() if "red" in text.rstrip("?").split() or "red." in text.split())
    assert (6 - told, 6 - shown) == (5, 1)


def test_check_of_the_exposed(measured, capsys):
    check = measured["check_exposed"]
    assert verdict(capsys, check, {}).count("no answer yet") == 3
    right = {"guesser": "memory_reset", "last message": "last_event_only", "switch": "memory_swapped"}
    assert verdict(capsys, check, right).count("right") == 3
    wrong = verdict(capsys, check, dict(zip(right, ("memory_swapped", "memory_reset", "memory_reset"))))
    assert wrong.count("not memory_") == 3 and "right" not in wrong.replace("right arm", "")


def half(model, state, slots=None, layers=slice(None), rows=slice(None), clone=True):
    n = model.config.n_slots // 2
    state = state.clone() if clone else state
    where = layers, rows, slice(0, n) if slots is None else slots
    state[where] = model.init_state(model.batch_size(state))[where]
    return state


@torch.no_grad()
def zeros(model, state, last):
    state = state.clone()
    state[:, :, : model.config.n_slots // 2] = 0
    return state


@pytest.mark.parametrize(
    "arm, says",
    [
        (lambda model, state, last: None, "no answer yet"),
        (lambda model, state, last: half(model, state), "right"),
        (lambda model, state, last: half(model, state, clone=False), "was changed"),
        (lambda model, state, last: half(model, state, slots=slice(8, None)), "the second half"),
        (lambda model, state, last: half(model, state, slots=slice(None), layers=slice(0, 1)), "a whole layer"),
        (lambda model, state, last: half(model, state, slots=slice(None), rows=slice(0, 1)), "a whole conversation"),
        (lambda model, state, last: state[:, :, 8:], "must keep its shape"),
        (zeros, "zeros are not the empty memory"),
        (lambda model, state, last: state, "not right"),
    ],
)
def test_check_of_the_arm(measured, capsys, arm, says):
    assert says in verdict(capsys, measured["check_half_forgotten"], arm)


@pytest.mark.parametrize(
    "low, says",
    [(None, "no answer yet"), (0.84, "right"), (0.8389, "right"), (1.0, "no width"), (1.2, "between 0 and 1"), (0.86, "not right")],
)
def test_check_of_the_lower_end(measured, capsys, low, says):
    assert says in verdict(capsys, measured["check_low"], low)


def test_published_solution_of_the_arm_passes(measured, capsys):
    solved = run([published("recall-by-distance", "half_forgotten")])
    assert verdict(capsys, measured["check_half_forgotten"], solved["half_forgotten"]) == "right\n"
