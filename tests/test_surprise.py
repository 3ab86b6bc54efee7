"""The surprise by parts is that of the whole table of logits, with the same gradients, and the table is never there."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rxt_lite.config import ModelConfig
from rxt_lite.data.batches import Batch
from rxt_lite.layers.linear import Linear
from rxt_lite.models import DecoderLM, RxT
from rxt_lite.models.decoder_lm import WindowLM
from rxt_lite.training import answer_loss, surprise
from rxt_lite.training.processes import cross_entropy
from rxt_lite.training.surprise import head_surprise

M, D, V = 37, 8, 50  # 37 targets, seven at a time: five wholes and a rest


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(surprise, "PART", {"cpu": 7 * V + 3})


def given(dtype=torch.float64):
    torch.manual_seed(0)
    return Linear(D, V).to(dtype), torch.randn(M, D, dtype=dtype, requires_grad=True), torch.randint(0, V, (M,))


def with_gradients(head, x, loss):
    return loss.detach(), *torch.autograd.grad(loss, [x, *head.parameters()])


@pytest.mark.parametrize("targets", [M, 14, 8])
def test_parts_give_the_loss_and_the_gradients_of_the_whole(targets):
    head, x, y = given()
    x, y = x[:targets], y[:targets]
    ours, whole = (with_gradients(head, x, 3 * loss) for loss in (head_surprise(head, x, y), F.cross_entropy(head(x), y)))
    for a, b in zip(ours, whole):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_logits_may_be_large():
    head, x, y = given(torch.float32)
    x = (1e4 * x).detach().requires_grad_()
    for ours, whole in zip(with_gradients(head, x, head_surprise(head, x, y)), with_gradients(head, x, F.cross_entropy(head(x), y))):
        torch.testing.assert_close(ours, whole)


def test_under_autocast_products_are_in_low_precision_and_sums_are_not():
    head, x, y = given(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        parts, whole = head_surprise(head, x, y), F.cross_entropy(head(x).float(), y)
    exact = with_gradients(head, x, F.cross_entropy(head(x), y))
    for ours, theirs, true in zip(with_gradients(head, x, parts), with_gradients(head, x, whole), exact):
        assert ours.dtype == theirs.dtype == torch.float32
        assert 0 < (ours - true).norm() < 2 * (theirs - true).norm() + 1e-6


def test_weights_of_half_precision_get_gradients_of_it():
    head, x, y = given(torch.bfloat16)
    ours, whole = (with_gradients(head, x, f(head, x, y)) for f in (head_surprise, lambda h, x, y: F.cross_entropy(h(x).float(), y)))
    assert [t.dtype for t in ours[1:]] == [t.dtype for t in whole[1:]] == [torch.bfloat16] * 3
    for a, b in zip(ours, whole):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.05, atol=1e-3)


def test_no_tensor_is_larger_than_a_part():
    class Largest(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[1] == V:
                self.rows = max(self.rows, len(out))
            return out

    head, x, y = given()
    with Largest() as by_parts:
        head_surprise(head, x, y).backward()
    with Largest() as whole:
        F.cross_entropy(head(x), y).backward()
    assert by_parts.rows == max(7, D) and whole.rows == M  # (D, V) is the weight's gradient


@pytest.mark.parametrize("few, learns", [(M, False), (7, True), (0, True)])
def test_few_targets_or_none_who_learns_go_the_plain_way(few, learns):
    head, x, y = given(torch.float32)
    with torch.set_grad_enabled(learns):
        ours, plain = head_surprise(head, x[:few], y[:few]), cross_entropy(head(x[:few]), y[:few])
    assert torch.equal(ours, plain) and (ours.grad_fn is None) != learns and "SumOfSurprise" not in str(ours.grad_fn)


def test_a_process_divides_by_the_targets_of_all(monkeypatch):
    head, x, y = given()
    monkeypatch.setattr(surprise, "total", lambda n: 4 * n)
    torch.testing.assert_close(4 * head_surprise(head, x, y), F.cross_entropy(head(x), y))


def test_a_gradient_of_a_gradient_is_refused():
    head, x, y = given()
    (gradient,) = torch.autograd.grad(head_surprise(head, x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("kind", [RxT, DecoderLM, WindowLM])
@pytest.mark.parametrize("head_norm", [True, False])
def test_a_model_learns_the_same_by_parts(kind, head_norm, monkeypatch):
    torch.manual_seed(0)
    model = kind(ModelConfig(vocab_size=V, d_model=16, n_heads=2, n_layers=2, n_slots=4, d_ff=24, max_len=64, head_norm=head_norm))
    tokens = torch.randint(7, V, (3, 2, 9))
    batch = Batch(tokens, torch.cat([torch.zeros(3, 2, 1), torch.rand(3, 2, 8)], dim=-1) > 0.3)
    learned = []
    for part in (7 * V, 10**9):
        monkeypatch.setattr(surprise, "PART", {"cpu": part})
        model.zero_grad()
        loss = answer_loss(model, batch)
        loss.backward()
        learned.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for parts, whole in zip(*learned):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
