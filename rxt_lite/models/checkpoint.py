"""A model in a folder: `model.safetensors` (weights), `config.json` (kind and shape), and what goes with it.

    save(model, folder, tokenizer=..., card={...})         load(folder) -> the model, in eval mode

`config.json`: {"format": 1, "model": "RxT", "config": {...}, "card": {...}}. Reading checks every byte
that matters before a model is returned; a wrong or truncated file gives one ValueError.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rxt_lite.models.base import EventModel

FORMAT = 1


def save(model: EventModel, folder: Path | str, *, tokenizer=None, card: dict | None = None, dtype=None) -> Path:
    """Write `model` into `folder`, whole or not at all. `dtype`: precision of the stored weights, as they are if None."""
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    about = {"format": FORMAT, "model": type(model).__name__, "config": asdict(model.config), "card": card or {}}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        weights = {name: w.detach().to("cpu", dtype).contiguous() for name, w in model.state_dict().items()}
        save_file(weights, beside / "model.safetensors")
        (beside / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            (beside / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():  # moved away, not deleted: a kill between these lines loses nothing
            os.replace(folder, old)
        os.replace(beside, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(f"could not save the model to {folder}: {error}; free some space or choose another folder") from error
    return folder


def read_card(folder: Path | str) -> dict:
    """The parsed `config.json` of a saved model, or one clear error."""
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not a folder with a saved model; expected config.json and model.safetensors in it")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        kind, config, version = about["model"], about["config"], about["format"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {folder} is not a saved model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not ours ({type(error).__name__}: {error}); save the model again") from error
    if version != FORMAT or not isinstance(kind, str) or not isinstance(config, dict):
        raise ValueError(f"{path} has format {version!r}, this version of rxt_lite reads format {FORMAT}")
    return about


def load(folder: Path | str) -> EventModel:
    """The model saved in `folder`, in float32 on the CPU, in eval mode."""
    from rxt_lite.models import MODELS  # the list of all models, which itself needs this package

    about = read_card(folder)
    if about["model"] not in MODELS:
        raise ValueError(f"{folder} holds a {about['model']!r}; this version knows {', '.join(MODELS)}")
    try:
        config = MODELS[about["model"]].Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in about["config"].items()})
    except TypeError as error:
        raise ValueError(f"{folder}/config.json does not describe a model of this version: {error}") from error
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a whole saved model")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); copy or train it again") from error
    with torch.device("meta"):
        expected = {name: tuple(w.shape) for name, w in MODELS[about["model"]](config).state_dict().items()}
    got = {name: tuple(w.shape) for name, w in weights.items()}
    if got != expected:
        wrong = sorted(set(got.items()) ^ set(expected.items()))[:3]
        raise ValueError(f"{path} does not fit its config.json, for example {wrong}; the two files are not of one model")
    if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
        raise ValueError(f"{path} holds values that are not finite numbers; train or copy it again")
    model = MODELS[about["model"]](config)
    model.load_state_dict({name: w.float() for name, w in weights.items()})
    return model.eval()
