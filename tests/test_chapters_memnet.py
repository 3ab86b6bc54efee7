"""The checks beside the exercises of "Bottleneck and controller" and "MemNet, whole": each known mistake gets its own sentence."""

import math

import pytest
import torch
from test_chapters import cells, published, run, verdict
from torch import nn

from rxt_lite.config import MemNetConfig
from rxt_lite.experiments.long_dependency import reach
from rxt_lite.layers.memory_bank import SemanticBottleneck
from rxt_lite.models.memnet import MemNet
from rxt_lite.training.memory_losses import mutual_information, read_entropy, utilisation

CONTROLLER, WHOLE = "bottleneck-and-controller", "memnet"


@pytest.fixture(scope="module")
def controlling():
    return run([cells(CONTROLLER)["checks"]], torch=torch, nn=nn)


@pytest.fixture(scope="module")
def assembled():
    return run([cells(WHOLE)["checks"]], torch=torch, math=math)


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


# ------------------------------------------------------------------------------------------------------- MemNet, whole
def test_the_size_of_the_state_is_that_of_the_library():
    size = run([published(WHOLE, "state_size")])["state_size"]
    config = MemNetConfig(d_model=12, n_heads=2, n_slots=5, bank_heads=2, top_k=5)
    state = MemNet(config).init_state(1)
    assert size(5, 12) == state.numel() * state.element_size()
    assert "4192" in cells(WHOLE)["quiz"] and size(32, 64) == 4 * 4192 == 16_768


@pytest.mark.parametrize("answer, says", [
    (lambda N, D: None, "no answer yet"),
    (lambda N, D: 4 * N * (2 * D + 3), "right\n"),
    (lambda N, D: N * (2 * D + 3), "four bytes"),
    (lambda N, D: 4 * N * (D + 3), "a key AND a value"),
    (lambda N, D: 8 * N * D, "are missing"),
    (lambda N, D: 4 * (2 * N * D + 3), "not once"),
    (lambda N, D: 8 * N * (2 * D + 3), "not eight"),
    (lambda N, D: 1, "is not right"),
])
def test_check_of_the_bytes(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_bytes"], answer)


def use(scale=None, turn=False, sign=1, wrong_way=False, nan=False):
    def of(reads):
        H = (lambda p: -(p * p.log()).sum(-1)) if nan else (lambda p: -sign * torch.xlogy(p, p).sum(-1))
        most = math.log(reads.shape[-1]) if scale is None else scale
        first, second = H(reads.mean(0)) / most, H(reads).mean() / most
        if turn:
            first, second = second, first
        return first, second, second - first if wrong_way else first - second

    return of


@pytest.mark.parametrize("answer, says", [
    (lambda reads: None, "no answer yet"),
    (use(), "right\n"),
    (lambda reads: [f(reads).item() for f in (utilisation, read_entropy, mutual_information)], "right\n"),
    (use(turn=True), "changed places"),
    (use(scale=1.0), "these are nats"),
    (use(scale=math.log(2)), "these are bits"),
    (use(sign=-1), "the sign is missing"),
    (use(wrong_way=True), "MINUS read entropy"),
    (use(nan=True), "not a number"),
    (lambda reads: reads.mean(), "three numbers are wanted"),
    (lambda reads: (0.1, 0.2, 0.3), "not right"),
])
def test_check_of_the_use(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_use"], answer)


def moves(direction=-1.0, ask=True, clone=True, measure=None, late=True):
    def moved(loss, logits):
        now = logits.clone().requires_grad_() if clone else logits.requires_grad_()
        quantity = measure or (lambda w: utilisation(w).item())
        before = quantity(now.softmax(-1))
        for _ in range(50):
            value = loss(now.softmax(-1))
            if ask and not value.requires_grad:
                return 0.0
            (slope,) = torch.autograd.grad(value, now)
            if clone:
                now = (now + direction * slope).detach().requires_grad_()
            else:
                now.data += direction * slope
        return quantity((now if late else logits).softmax(-1)) - before

    return moved


@pytest.mark.parametrize("answer, says", [
    (lambda loss, logits: None, "no answer yet"),
    (moves(), "right\n"),
    (moves(direction=1.0), "wrong way"),
    (moves(ask=False), "return 0.0"),
    (moves(clone=False), "work on a clone"),
    (moves(late=False), "nothing moved"),
    (lambda loss, logits: 1.0, "both signs"),
])
def test_check_of_what_a_loss_moves(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_moves"], answer)


@pytest.mark.parametrize("answer, says", [
    ({}, "no answer yet"),
    ({"A": "down", "B": "nothing", "C": "up"}, "right\n"),
    ({"A": "up", "B": "nothing", "C": "up"}, "A: a loss is made SMALL"),
    ({"A": "down", "B": "up", "C": "up"}, "B: its value looks well"),
    ({"A": "down", "B": "nothing", "C": "down"}, "C: minus the entropy"),
    ({"A": "down"}, "an answer for each"),
])
def test_check_of_the_claims(assembled, capsys, answer, says):
    assert says in verdict(capsys, assembled["check_claims"], answer)


def test_published_solutions_of_memnet_pass_and_find_the_signs(assembled, capsys):
    names = {"torch": torch, "math": math, "utilisation": utilisation}
    for function, check in (("state_size", "check_bytes"), ("use_of", "check_use"), ("moves", "check_moves")):
        solved = run([published(WHOLE, function)], **names)
        assert verdict(capsys, assembled[check], solved[function]) == "right\n"
    torch.manual_seed(0)
    logits = torch.randn(20, 6) + torch.tensor([2.0, 0, 0, 0, 0, 0])
    found = {name: solved["moves"](loss, logits) for name, loss in assembled["CLAIMS"].items()}
    words = {name: "up" if value > 0.01 else "down" if value < -0.01 else "nothing" for name, value in found.items()}
    assert verdict(capsys, assembled["check_claims"], words) == "right\n"
