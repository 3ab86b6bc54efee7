"""A memory in a file: one safetensors tensor, and beside it, as JSON, whose it is.

    save(memory, path, identity(model), events=7)         load(path, identity(model)) -> memory, 7

{"format": 1, "events": 7, "model": "RxT", ...the config..., "weights": "..."}. A memory means nothing to a
model with other weights, so reading it there is refused; a wrong or truncated file gives one ValueError.
"""

import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rxt_lite.models.base import EventModel

FORMAT = 1


def identity(model: EventModel) -> dict:
    """Which model this is: its kind, its config, and a hash of its weights, all of them read as float32."""
    digest = hashlib.sha256()
    for name, w in model.state_dict().items():
        digest.update(name.encode() + w.detach().float().cpu().flatten().view(torch.uint8).numpy().tobytes())
    config = json.loads(json.dumps(asdict(model.config)))  # as it will be read back: pairs are lists
    return {"model": type(model).__name__, **config, "weights": digest.hexdigest()[:16]}


def save(memory: Tensor, path: Path | str, whose: dict, *, events: int) -> Path:
    """Write `memory` to `path`, whole or not at all. `whose`: the `identity` of its model."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.part-{os.getpid()}-{threading.get_ident()}")
    about = {"format": FORMAT, "events": events, **whose}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"memory": memory.detach().cpu().contiguous()}, beside, metadata={"rxt_lite": json.dumps(about)})
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"could not save the memory to {path}: {error}; free some space or choose another file") from error
    return path


def load(path: Path | str, whose: dict) -> tuple[Tensor, int]:
    """The memory in `path`, on the CPU, and how many events are in it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no memory at {path}; expected a file that a conversation was saved to")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["rxt_lite"])
            memory, events, version = file.get_tensor("memory").clone(), int(about["events"]), about["format"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, cut off or not a memory ({error}); save the conversation again") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version!r}, this version of rxt_lite reads format {FORMAT}")
    wrong = [f"{key}={about.get(key)!r}, here {mine!r}" for key, mine in whose.items() if about.get(key) != mine]
    if wrong:
        raise ValueError(f"{path} is the memory of another model ({'; '.join(wrong[:3])}); open it with its own")
    return memory, events
