"""A saved model comes back equal, or not at all and with one clear error."""

import json
from dataclasses import replace

import pytest
import torch

from rxt_lite.config import TINY
from rxt_lite.models import MODELS
from rxt_lite.models.checkpoint import load, read_card, save


@pytest.fixture
def saved(tmp_path):
    return save(MODELS["RxT"](TINY), tmp_path / "model", card={"seed": 3})


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_loaded_model_answers_as_the_saved_one(name, tmp_path):
    model = MODELS[name](replace(TINY, self_heads=(4, 2))).eval()
    again = load(save(model, tmp_path / "there" / "model", card={"seed": 3}))
    tokens = torch.arange(7, 15).view(1, 8)
    assert type(again) is type(model) and again.config == model.config and not again.training
    torch.testing.assert_close(again(tokens, again.init_state(1)), model(tokens, model.init_state(1)), atol=0, rtol=0)
    assert read_card(tmp_path / "there" / "model")["card"] == {"seed": 3}


def test_half_precision_is_stored_small_and_read_as_float32(saved, tmp_path):
    half = save(load(saved), tmp_path / "half", dtype=torch.float16)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (saved / "model.safetensors").stat().st_size
    assert all(p.dtype == torch.float32 for p in load(half).parameters())


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def change(folder, key, value):
    about = json.loads((folder / "config.json").read_text())
    about["config" if key in about["config"] else key] = {**about["config"], key: value} if key in about["config"] else value
    (folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage, error, words",
    [
        (truncate, ValueError, "truncated"),
        (lambda f: (f / "model.safetensors").write_bytes(b"not weights"), ValueError, "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "missing"),
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "missing"),
        (lambda f: (f / "config.json").write_text('{"format": 1'), ValueError, "damaged"),
        (lambda f: (f / "config.json").write_text("[1]"), ValueError, "damaged"),
        (lambda f: change(f, "format", 99), ValueError, "format 99"),
        (lambda f: change(f, "model", "Mamba"), ValueError, "Mamba.*RxT"),
        (lambda f: change(f, "n_slots", 9), ValueError, "does not fit its config.json"),
        (lambda f: change(f, "gate", "nope"), ValueError, "nope"),
        (lambda f: change(f, "config", {"colour": 1}), ValueError, "colour"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_one_sentence(saved, damage, error, words):
    damage(saved)
    with pytest.raises(error, match=words):
        load(saved)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = MODELS["RxT"](TINY)
    model.head.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        load(save(model, tmp_path / "model"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_old_model_whole(saved, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rxt_lite.models.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="could not save the model to .*No space left"):
        save(MODELS["RxT"](TINY), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
