"""Muon: directions of a matrix move alike; stacks are matrices one by one; what is no map between features stays with AdamW."""
import pytest
import torch
from torch import nn

from rxt_lite.config import TINY
from rxt_lite.models import RxT
from rxt_lite.training.optimizer import MATRIX_RATE, MatrixOptimizer, Muon, matrices, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (3, 6, 16)])
def test_all_singular_values_come_near_one_and_the_directions_stay(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    new = u.mT @ orthogonal(x) @ vt.mT  # diagonal where the directions are those of x
    values = new.diagonal(dim1=-2, dim2=-1)
    assert (new - torch.diag_embed(values)).abs().max() < 1e-9
    assert values[s > 0.02 * s.amax(-1, keepdim=True)].sub(1).abs().max() < 0.4


def test_each_matrix_of_a_stack_moves_as_if_it_were_alone():
    torch.manual_seed(0)
    stack = nn.Parameter(torch.randn(3, 4, 6))
    alone = [nn.Parameter(p.clone()) for p in stack.detach()]
    both = Muon([stack], lr=0.1, weight_decay=0.1), Muon(alone, lr=0.1, weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(3, 4, 6)
        stack.grad = gradient
        for p, g in zip(alone, gradient):
            p.grad = g.clone()
        for optimizer in both:
            optimizer.step()
    assert torch.allclose(stack, torch.stack(list(alone)), atol=1e-6)


def test_it_is_pytorchs_own_muon_but_for_its_bfloat16():
    theirs_class = getattr(torch.optim, "Muon", None) or pytest.skip("torch.optim.Muon came with PyTorch 2.9")
    torch.manual_seed(0)
    start = torch.randn(16, 24)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([ours], lr=0.02, weight_decay=0.1)
    other = theirs_class([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(16, 24)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved


def test_what_is_no_map_between_features_is_left_to_adam():
    model = RxT(TINY)
    names = {id(p): name for name, p in model.named_parameters()}
    inside = {names[id(p)] for p in matrices(model)}
    assert "encoder.0.attention.to_q.weight" in inside and "memory.attention.to_out.weight" in inside
    assert not any(name.startswith(("embedding", "head", "initial_slots")) or "norm" in name or name.endswith("bias") for name in inside)
    assert "memory.gate.to_gate.weight" not in inside  # a map to one number


def test_nothing_frozen_moves_and_nothing_else_stands_still():
    model, head = RxT(TINY), nn.Linear(4, 4)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith("encoder"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = MatrixOptimizer(model, list(head.parameters()), lr=0.01, weight_decay=0.0)
    for p in [*model.parameters(), *head.parameters()]:
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    optimizer.step(0.01)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith("encoder")}
    assert optimizer.muon.param_groups[0]["lr"] == pytest.approx(MATRIX_RATE * 0.01)


def test_a_saved_state_goes_on_to_the_bit():
    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            optimizer.step(0.01)

    torch.manual_seed(0)
    whole, broken = RxT(TINY), RxT(TINY)
    broken.load_state_dict(whole.state_dict())
    new = lambda model: MatrixOptimizer(model, [], lr=0.01, weight_decay=0.01)  # noqa: E731
    train(whole, new(whole), range(4))
    first = new(broken)
    train(broken, first, range(2))
    second = new(broken)
    second.load_state_dict(first.state_dict())
    train(broken, second, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), broken.parameters()))
