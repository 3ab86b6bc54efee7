"""The checks beside the exercises of "A bank of slots" and "Addressing, age and allocation": each known mistake gets its own sentence."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_chapters import cells, published, run, verdict
from torch import nn

from rxt_lite.config import MemNetConfig
from rxt_lite.layers.memory_bank import MultiHeadMemoryBank, Wish, sparse_softmax


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


# -------------------------------------------------------------------------------------- Addressing, age and allocation
@pytest.fixture(scope="module")
def addressing():
    return run([cells("addressing")["checks"]], math=math, torch=torch, F=F, nn=nn, sparse_softmax=sparse_softmax)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.0, 3.0, 3.5), "right"),
        ((0.0, 2.0, 3.0), "older too"),
        ((0.0, 3.0, 1.0), "half of the age, not 0"),
        ((0.0, 3.0, 3.0), "first one step older"),
        ((0.0, 3.0, 6.0), "has been forgotten"),
        ((0.0, 7.0, 6.0), "the youngest slot"),
        ((4.0, 2.0, 2.5), "before the last event"),
        ((4.0, 3.0, 0.0), "has become younger"),
        ((9.0, 9.0, 9.0), "not right"),
    ],
)
def test_check_of_the_ages(addressing, capsys, answer, says):
    assert says in verdict(capsys, addressing["check_ages"], answer)


def test_the_ages_of_the_first_exercise_are_those_of_the_library(addressing, capsys):
    """Lived through by the bank itself, from the ages and gates that the text names."""
    config = MemNetConfig(d_model=8, n_heads=2, n_slots=3, bank_heads=1, top_k=3, write_policy="lru", decay=None)
    bank, ones = MultiHeadMemoryBank(config), torch.ones(1, 1, 8)
    slots = bank.first_slots(1)._replace(age=torch.tensor([[1.0, 3.0, 2.0]]))
    for gate in (1.0, 0.0, 0.5, 1.0):
        slots, _ = bank.write(slots, Wish(ones, ones, torch.full((1, 1), gate), ones))
    assert verdict(capsys, addressing["check_ages"], tuple(slots.age[0].tolist())) == "right\n"


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda share, slots: None, "no answer yet"),
        (lambda share, slots: math.log(share * (slots - 1) / (1 - share)), "right"),
        (lambda share, slots: math.log(share * slots / (1 - share)), "N - 1 others, not N"),
        (lambda share, slots: math.log(share / (1 - share)), "number of slots is missing"),
        (lambda share, slots: -math.log(share * (slots - 1) / (1 - share)), "the sign"),
        (lambda share, slots: math.log10(share * (slots - 1) / (1 - share)), "natural logarithm"),
        (lambda share, slots: math.log(share * (slots - 1) / (1 - share)) / 2, "not -1"),
        (lambda share, slots: share * (slots - 1) / (1 - share), "e to the power"),
        (lambda share, slots: math.log(share * (slots - 1)), "divide by 1 - share"),
        (lambda share, slots: 1.0, "gives the right slot"),
    ],
)
def test_check_of_the_sharpness(addressing, capsys, answer, says):
    assert says in verdict(capsys, addressing["check_sharpness"], answer)


def cut(scores, k, largest=True, fill=-torch.inf, dim=-1):
    best = scores.topk(min(k, scores.shape[-1]), dim=-1, largest=largest).indices
    chosen = torch.zeros_like(scores).scatter(-1, best, 1.0).bool()
    return scores.masked_fill(~chosen, fill).softmax(dim), chosen


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda scores, k: None, "no answer yet"),
        (lambda scores, k: cut(scores, k)[0], "right"),
        (lambda scores, k: scores.softmax(-1) * cut(scores, k)[1], "do not add up to 1"),
        (lambda scores, k: cut(scores, k, fill=0.0)[0], "minus infinity"),
        (lambda scores, k: scores.softmax(-1), "looks at all slots"),
        (lambda scores, k: cut(-scores, k)[0], "the k smallest"),
        (lambda scores, k: cut(scores, k, largest=False)[0], "of the smallest scores"),
        (lambda scores, k: cut(scores, k)[1] / min(k, 6), "the same share"),
        (lambda scores, k: scores * cut(scores, k)[1], "the softmax is missing"),
        (lambda scores, k: scores.topk(min(k, 6)).values.softmax(-1), "one weight for each slot"),
        (lambda scores, k: torch.zeros_like(scores).scatter(-1, scores.topk(k).indices, scores.topk(k).values.softmax(-1)), "an error"),
        (lambda scores, k: 0 * scores, "not right"),
    ],
)
def test_check_of_the_best_k(addressing, capsys, answer, says):
    assert says in verdict(capsys, addressing["check_top_k"], answer)


def listener(clear=True, back=True, quiet=lambda grad: grad is None or not grad.any()):
    def silent(module, loss):
        if clear:
            module.zero_grad()
        if back:
            loss.backward()
        return [name for name, p in module.named_parameters() if quiet(p.grad)]

    return silent


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda module, loss: None, "no answer yet"),
        (listener(), "right"),
        (listener(quiet=lambda grad: grad is None), "a clamp gives 0"),
        (listener(quiet=lambda grad: grad is not None and not grad.any()), "the other kind of silence"),
        (listener(quiet=lambda grad: grad is not None and bool(grad.any())), "the one that does learn"),
        (listener(quiet=lambda grad: grad is not None), "CANNOT move"),
        (listener(back=False), "has loss.backward() been called"),
        (listener(clear=False), "Clear them first"),
        (lambda module, loss: [], "three of the four"),
        (lambda module, loss: ["unused"], "is not"),
        (lambda module, loss: [p.grad.sum() for p in module.parameters()], "an error"),
    ],
)
def test_check_of_the_silent_parameters(addressing, capsys, answer, says):
    assert says in verdict(capsys, addressing["check_silent"], answer)


def reading(beta, likeness=lambda asked, keys: F.normalize(asked, dim=-1) @ F.normalize(keys, dim=-1).mT):
    return lambda asked, keys, values, sharpness: (beta(sharpness) * likeness(asked, keys)).softmax(-1) @ values


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda *parts: None, "no answer yet"),
        (reading(F.softplus), "right"),
        (reading(lambda b: F.softplus(b).item()), "still gets no gradient"),
        (reading(lambda b: F.softplus(b).clamp(1, 20)), "the clamp is still there"),
        (reading(lambda b: b), "must stay positive"),
        (reading(torch.exp), "this is the exponential"),
        (reading(lambda b: 1.0), "the sharpness is missing"),
        (reading(F.softplus, lambda asked, keys: asked @ keys.mT), "the dot product"),
        (lambda asked, keys, values, sharpness: values, "one value for each question"),
        (lambda asked, keys, values, sharpness: (asked * keys).softmax(-1) @ values, "an error"),
        (lambda asked, keys, values, sharpness: 0 * asked[:, :3], "not right"),
    ],
)
def test_check_of_the_repaired_read(addressing, capsys, answer, says):
    assert says in verdict(capsys, addressing["check_repaired_read"], answer)


def test_published_solutions_of_the_addressing_pass(addressing, capsys):
    checks = {"sharpness_for": "check_sharpness", "top_k_weights": "check_top_k", "silent": "check_silent",
              "repaired_read": "check_repaired_read"}
    for function, check in checks.items():
        solved = run([published("addressing", function)], math=math, torch=torch, F=F)
        assert verdict(capsys, addressing[check], solved[function]) == "right\n"


def test_the_described_reader_keeps_its_sharpness_from_learning(addressing):
    """What the solution says of the planted reader, found by the published function."""
    source = cells("addressing")["your-silent"]
    names = run([source.split("def silent")[0], published("addressing", "silent")], torch=torch, F=F, nn=nn)
    reader = names["DescribedReader"](8)
    loss = reader(torch.randn(4, 8), torch.randn(5, 8), torch.randn(5, 8)).pow(2).sum()
    assert names["silent"](reader, loss) == ["sharpness"]
