"""The checks beside the exercises of "Bottleneck and controller": each known mistake gets its own sentence."""

import pytest
import torch
from test_chapters import cells, published, run, verdict
from torch import nn

from rxt_lite.config import MemNetConfig
from rxt_lite.experiments.long_dependency import reach
from rxt_lite.layers.memory_bank import SemanticBottleneck

CONTROLLER = "bottleneck-and-controller"


@pytest.fixture(scope="module")
def controlling():
    return run([cells(CONTROLLER)["checks"]], torch=torch, nn=nn)


# -------------------------------------------------------------------------------------------- Bottleneck and controller
def test_the_first_exercise_of_the_controller_is_the_reach_of_the_library():
    assert reach(MemNetConfig(n_layers=4), 5) == 16 and "how_far = 16" in cells(CONTROLLER)["solution-1"]


@pytest.mark.parametrize("answer, says", [
    (None, "no answer yet"), (16, "right\n"), (20, "counts the token itself"), (4, "this is one layer"), (17, "BACK does it reach"),
    (625, "the layers add"), (9, "every layer adds"),
])
def test_check_of_the_reach(controlling, capsys, answer, says):
    assert says in verdict(capsys, controlling["check_reach"], answer)


def back(T):
    return torch.arange(T)[:, None] - torch.arange(T)


@pytest.mark.parametrize("answer, says", [
    (lambda T, w: None, "no answer yet"),
    (lambda T, w: (back(T) >= 0) & (back(T) < w), "right\n"),
    (lambda T, w: (back(T) >= 0) & (back(T) <= w), "one too many"),
    (lambda T, w: (back(T) >= 0) & (back(T) < w - 1), "one too few"),
    (lambda T, w: ((back(T) >= 0) & (back(T) < w)).T, "turned over"),
    (lambda T, w: back(T).abs() < w, "sees the future"),
    (lambda T, w: back(T) >= 0, "without a window"),
    (lambda T, w: (back(T) > 0) & (back(T) < w), "must see itself"),
    (lambda T, w: ~((back(T) >= 0) & (back(T) < w)), "the opposite"),
    (lambda T, w: torch.ones(T, T).tril(), "True and False"),
    (lambda T, w: torch.ones(T, w, dtype=torch.bool), "the shape is"),
    (lambda T, w: torch.zeros(T, T, dtype=torch.bool), "not right"),
])
def test_check_of_the_mask(controlling, capsys, answer, says):
    assert says in verdict(capsys, controlling["check_mask"], answer)


@pytest.mark.parametrize("answer, says", [
    (lambda D: None, "no answer yet"),
    (lambda D: (D * D - 1) // (2 * D + 1), "right\n"),
    (lambda D: D // 2, "not smaller"),
    (lambda D: D / 2, "round down"),
    (lambda D: D - 1, "there are two maps"),
    (lambda D: 1, "is not the widest"),
])
def test_check_of_the_widest(controlling, capsys, answer, says):
    assert says in verdict(capsys, controlling["check_widest"], answer)


@pytest.mark.parametrize("D", [8, 24, 66])
def test_the_widest_bottleneck_is_smaller_than_a_full_map_and_the_next_is_not(D):
    widest = run([published(CONTROLLER, "widest")])["widest"](D)
    size = lambda d: sum(p.numel() for p in SemanticBottleneck(MemNetConfig(d_model=D, n_heads=1, d_bottleneck=d)).parameters())  # noqa: E731
    assert size(widest) < D * D + D <= size(widest + 1)


def hears(count_zeros=False, backward=False, ask=True, clear=False, turn=False, unused=True, none=True):
    def found(model, loss):
        if ask and not loss.requires_grad:
            return []
        names, parameters = zip(*model.named_parameters())
        if backward:
            if clear:
                model.zero_grad()
            loss.backward()
            gradients = [p.grad for p in parameters]
        else:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=unused)
        if not none:
            return [name for name, g in zip(names, gradients) if g.abs().sum() > 0]
        heard = [name for name, g in zip(names, gradients) if g is not None and (count_zeros or g.abs().sum() > 0)]
        return [name for name in names if name not in heard] if turn else heard

    return found


@pytest.mark.parametrize("answer, says", [
    (lambda model, loss: None, "no answer yet"),
    (hears(), "right\n"),
    (hears(count_zeros=True), "gradient of zeros"),
    (hears(backward=True), "an earlier backward"),
    (hears(backward=True, clear=True), ".grad of the model has changed"),
    (hears(ask=False), "ask loss.requires_grad first"),
    (hears(turn=True), "NOTHING"),
    (hears(unused=False), "an error"),
    (hears(none=False), "None has no size"),
    (lambda model, loss: ["first"], "is not"),
])
def test_check_of_who_hears_a_loss(controlling, capsys, answer, says):
    assert says in verdict(capsys, controlling["check_hears"], answer)


def test_published_solutions_of_the_controller_pass(controlling, capsys):
    for function, check in (("window_mask", "check_mask"), ("widest", "check_widest"), ("hears", "check_hears")):
        solved = run([published(CONTROLLER, function)], torch=torch)
        assert verdict(capsys, controlling[check], solved[function]) == "right\n"
