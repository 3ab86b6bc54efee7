"""More or fewer slots in a trained model."""

from dataclasses import replace

import pytest
import torch

from rxt_lite.config import GATES, TINY
from rxt_lite.models import RxT
from rxt_lite.models.resize import resize_memory, resize_slots

CONFIG = replace(TINY, n_slots=6)
EVENTS = torch.randint(7, 256, (3, 2, 9), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def after_two_events(model):
    stm = model.init_state(2)
    for event in EVENTS[:2]:
        stm = model.remember(event, stm)
    return stm, model(EVENTS[2], stm)


def trained(**options):
    """A model whose parameters are all different, as after training."""
    torch.manual_seed(0)
    model = RxT(replace(CONFIG, **options)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return model


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("variant", ["simple", "self_interlayer"])
def test_twice_the_slots_answer_the_same_and_half_of_them_are_the_old_model(gate, variant):
    model = trained(gate=gate, memory_attention=variant)
    large = resize_slots(model, 12)
    stm, logits = after_two_events(model)
    large_stm, large_logits = after_two_events(large)
    assert large.config.n_slots == 12 and not large.training
    torch.testing.assert_close(large_stm, resize_memory(stm, 12), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(large_logits, logits, atol=1e-4, rtol=1e-4)
    again = resize_slots(large, 6)
    for name, w in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], w)


def test_one_gate_for_all_slots_grows_too():
    model = trained(gate="linear", gate_per_slot=False)
    torch.testing.assert_close(after_two_events(resize_slots(model, 12))[1], after_two_events(model)[1], atol=1e-4, rtol=1e-4)


def test_noise_tells_the_copies_apart_and_leaves_the_old_slots_alone():
    model = trained()
    large = resize_slots(model, 10, noise=0.1)
    start = large.init_state(1)[:, 0]
    assert torch.equal(start[:, :6], model.init_state(1)[:, 0])
    assert not torch.isclose(start[:, 6:], start[:, :4]).all(-1).any()
    assert not torch.equal(large.memory.names[:, :, 6:], large.memory.names[:, :, :4])


def test_fewer_slots_are_the_first_ones_and_the_old_model_stays():
    model = trained()
    small = resize_slots(model, 2)
    assert torch.equal(small.init_state(1), model.init_state(1)[:, :, :2]) and model.config.n_slots == 6
    assert after_two_events(small)[1].isfinite().all()


@pytest.mark.parametrize("wrong", [0, -3])
def test_no_slots_is_refused(wrong):
    with pytest.raises(ValueError, match=f"n_slots={wrong}"):
        resize_slots(trained(), wrong)
