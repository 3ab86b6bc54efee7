"""One visible loop. A stage of a curriculum is a row of settings; this file is the only trainer.

Every step depends on its number alone: the batch is `batch_at(step)`, the random state is seeded with
(seed, step), the learning rate is a function of the step. So a run that is killed and started again
with the same arguments ends with the same weights as one that was left alone.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rxt_lite.data.batches import Batch
from rxt_lite.models.base import EventModel


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One line of the curriculum: which loss, for how long, how fast."""

    name: str
    loss: Callable[[EventModel, Batch], Tensor]
    steps: int
    lr: float = 2e-3  # peak; reached after `warmup` steps, then a half cosine down to a twentieth
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the whole gradient

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


def fit(
    model: EventModel,
    stage: Stage,
    batch_at: Callable[[int], Batch],
    *,
    seed: int = 0,
    run: Path | str | None = None,
    watch: Callable[[EventModel], dict] | None = None,
    watch_every: int = 100,
    save_every: float = 20.0,
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place through one stage and return a row {"step", "loss", "lr", "seconds"} per step.

    run         a file that keeps weights, optimiser and rows, written every `save_every` seconds and
                at the end. If it is there already, training goes on from it (or is over at once).
    watch       called every `watch_every` steps and at the end with the model in eval mode; what it
                returns joins that step's row.
    On a GPU the forward pass runs in bfloat16 where the card has it.
    """
    device = model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, weight_decay=stage.weight_decay)
    settings = {**asdict(stage), "loss": stage.loss.__name__, "seed": seed, "data": str(batch_at), **asdict(model.config)}
    rows = resume(run, model, optimizer, settings) if run else []
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    saved, started = time.monotonic(), time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
    model.train()
    try:
        with tqdm(total=stage.steps, initial=len(rows), desc=stage.name, disable=not progress, mininterval=0.5) as bar:
            for step in range(len(rows), stage.steps):
                torch.manual_seed(seed * 1_000_003 + step)
                batch = batch_at(step).to(device)
                for group in optimizer.param_groups:
                    group["lr"] = stage.lr_at(step)
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = stage.loss(model, batch)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), stage.clip)
                optimizer.step()
                row = {"step": step, "loss": loss.item(), "lr": stage.lr_at(step), "seconds": time.monotonic() - started}
                if watch and ((step + 1) % watch_every == 0 or step + 1 == stage.steps):
                    model.eval()
                    with torch.no_grad():
                        row |= watch(model)
                    model.train()
                rows.append(row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                bar.update()
                if run and (time.monotonic() - saved > save_every or step + 1 == stage.steps):
                    save_run(run, model, optimizer, settings, rows)
                    saved = time.monotonic()
    finally:  # an interrupt may fall between two lines of a step, so nothing is saved here: go on from the last save
        model.eval()
    return rows


def save_run(run: Path | str, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict, rows: list) -> None:
    """Write beside, then rename: a kill or a full disk in the middle leaves the previous file whole."""
    run = Path(run)
    run.parent.mkdir(parents=True, exist_ok=True)
    beside = run.with_name(run.name + ".part")
    try:
        torch.save({"settings": settings, "rows": rows, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, beside)
        os.replace(beside, run)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        beside.unlink(missing_ok=True)
        raise OSError(
            f"could not save the training run to {run}: {error}. The last good save is untouched; free some space "
            "or choose another folder, and start again with the same arguments to go on from it"
        ) from error


def resume(run: Path | str, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict) -> list[dict]:
    """Load a saved run into `model` and `optimizer` and return its rows; none if there is no such file."""
    run = Path(run)
    if not run.exists():
        return []
    try:
        saved = torch.load(run, map_location="cpu", weights_only=True)
        was = saved["settings"]
    except Exception as error:
        raise ValueError(f"{run} is not a readable training run ({type(error).__name__}); delete it to start afresh") from error
    if was != settings:
        differ = [k for k in settings if was.get(k) != settings[k]] or ["an option this version does not know"]
        raise ValueError(
            f"{run} was trained with other settings ({', '.join(f'{k}={was.get(k)!r}, now {settings.get(k)!r}' for k in differ)}); "
            "use the same settings, another run file, or delete this one"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["rows"]
