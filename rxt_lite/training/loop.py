"""One visible loop. A stage of a curriculum is a row of settings; this file is the only trainer.

Every step depends on its number alone: the batch is `batch_at(step)`, the random state is seeded with
(seed, step), the learning rate is a function of the step. So a run that is killed and started again
with the same arguments ends with the same weights as one that was left alone.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rxt_lite.config import ModelConfig
from rxt_lite.data.batches import Batch
from rxt_lite.models.base import EventModel
from rxt_lite.training.metrics import Metrics
from rxt_lite.training.optimizer import MatrixOptimizer
from rxt_lite.training.processes import add_gradients, my_share, number, total
from rxt_lite.training.regularisers import REGULARISERS, watch_memory


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One line of the curriculum: which loss, which parts learn from it, for how long, how fast.

    loss       (model, batch, **options) -> scalar; with `extra` (model, batch, extra module, **options)
    learns     prefixes of the names of the parameters that learn; all others stay as they are, to the bit
    extra      makes a module that is trained along and thrown away at the end, such as a head for masked tokens
    lessons    whether the small world is taught in lessons, few names first, or all of it from the start
    patience   watches without a better validation loss until the stage ends early; the best weights are kept
    """

    name: str
    loss: Callable[..., Tensor]
    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    learns: tuple[str, ...] = ("",)
    extra: Callable[[ModelConfig], nn.Module] | None = None
    lessons: bool = True
    patience: int | None = None
    slot_diversity: float = 0.0  # weights of the regularisers, see regularisers.py
    gate_size: float = 0.0
    balance: float = 0.0  # only where the decoder has experts
    lr: float = 2e-3  # peak, of AdamW (see optimizer.py); reached after `warmup` steps, then a half cosine down to a twentieth
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
    after: Sequence[str] = (),
    valid: Sequence[Batch] = (),
    watch: Callable[[EventModel], dict] | None = None,
    watch_every: int = 100,
    save_every: float = 20.0,
    tensorboard: Path | str | None = None,
    bf16: bool | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place through one stage and return a row {"step", "loss", "lr", "seconds"} per step.

    run         a file that keeps weights, optimiser and rows, written every `save_every` seconds and
                at the end. If it is there already, training goes on from it (or is over at once). The rows
                also stand beside it, one JSON object a line, in a file that ends in .metrics.jsonl.
    after       the stages that this model has been through, for the run file to know its own
    valid       batches for the validation loss, "valid" in a row; drives early stopping where the stage has patience
    watch       called every `watch_every` steps and at the end with the model in eval mode; what it
                returns joins that step's row.
    tensorboard a folder for TensorBoard's events
    bf16        run the forward pass in bfloat16, weights and optimiser staying in float32; if not said, on a GPU that has it
    Started by `torchrun`, each process trains on its share of every batch. Raises ValueError when the loss is no longer a
    number; the last save stays as it is.
    """
    if stage.patience is not None and (not valid or stage.patience < 1):
        raise ValueError(f"patience={stage.patience} counts watches of the validation loss: it must be at least 1, and needs `valid`")
    device, frozen = model.device, freeze(model, stage.learns)
    extra = None
    if stage.extra:
        torch.manual_seed(seed)
        extra = stage.extra(model.config).to(device)
    more = list(extra.parameters()) if extra else []
    learning = [p for p in model.parameters() if p.requires_grad] + more
    optimizer = MatrixOptimizer(model, more, lr=stage.lr, weight_decay=stage.weight_decay)
    settings = {**asdict(stage), "loss": stage.loss.__name__, "extra": stage.extra and stage.extra.__name__, "seed": seed,
                "optimizer": "Muon and AdamW", "bf16": bf16, "data": str(batch_at), "after": tuple(after), **asdict(model.config)}
    if stage.patience is not None:
        settings |= {"valid": len(valid), "watch_every": watch_every}
    best = Best()
    parts = {"model": model, "optimizer": optimizer, "best": best} | ({"extra": extra} if extra else {})
    rows = resume(run, parts, settings) if run else []
    over = len(rows) >= stage.steps or out_of_patience(rows, stage.patience)
    first = number() == 0
    if bf16 is None:
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    weights = {name: getattr(stage, name) for name in REGULARISERS if getattr(stage, name)}
    if not model.config.n_experts:
        weights.pop("balance", None)

    def loss_of(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return stage.loss(model, batch, *([extra] if extra else []), **stage.options)

    def validate() -> float:
        torch.manual_seed(seed)  # the same noise every time
        return sum(total(loss_of(my_share(batch).to(device))).item() for batch in valid) / len(valid)

    saved, started = time.monotonic(), time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
    safe = len(rows)  # steps that are in the run file
    model.train()
    try:
        with Metrics(*(run, tensorboard) if first and not over else (None, None), rows) as metrics, tqdm(
                total=stage.steps, initial=len(rows), desc=stage.name, disable=not (progress and first), mininterval=0.5) as bar:
            for step in range(len(rows), stage.steps):
                if over:
                    break
                torch.manual_seed(seed * 1_000_003 + step + (number() << 40))
                batch = my_share(batch_at(step)).to(device)
                with watch_memory(model) if weights else nullcontext() as seen:
                    loss = loss_of(batch)
                asked = {name: REGULARISERS[name](seen, batch) for name in weights}
                for name, value in asked.items():
                    loss = loss + weights[name] * value
                optimizer.zero_grad()
                loss.backward()
                add_gradients(learning)
                norm = nn.utils.clip_grad_norm_(learning, stage.clip)
                optimizer.step(stage.lr_at(step))
                row = {"step": step, "loss": total(loss).item(), "lr": stage.lr_at(step), "seconds": time.monotonic() - started}
                if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
                    raise ValueError(not_a_number(stage, row["loss"], norm, step, run, safe))
                row |= {name: total(value).item() for name, value in asked.items()}
                if (valid or watch) and ((step + 1) % watch_every == 0 or step + 1 == stage.steps):
                    model.eval()
                    with torch.no_grad():
                        row |= {"valid": validate()} if valid else {}
                        row |= watch(model) if watch and first else {}
                    model.train()
                rows.append(row)
                if stage.patience is not None:
                    best.keep(row, model)
                metrics.add(row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                bar.update()
                over = step + 1 == stage.steps or out_of_patience(rows, stage.patience)
                if run and first and (over or time.monotonic() - saved > save_every):
                    save_run(run, parts, settings, rows)
                    saved, safe = time.monotonic(), step + 1
        best.restore(model)
    finally:  # an interrupt may fall between two lines of a step, so nothing is saved here: go on from the last save
        for p in frozen:
            p.requires_grad_(True)
        model.eval()
    return rows


# ---------------------------------------------------------------------------------------------- what learns, what is kept
def freeze(model: nn.Module, learns: tuple[str, ...]) -> list[nn.Parameter]:
    """Stop the gradient at every parameter whose name begins with none of `learns`; returns those stopped here."""
    frozen = [p for name, p in model.named_parameters() if not name.startswith(learns) and p.requires_grad]
    if not any(name.startswith(learns) for name, _ in model.named_parameters()):
        raise ValueError(f"no parameter of {type(model).__name__} begins with {' or '.join(map(repr, learns))}, so nothing would learn")
    for p in frozen:
        p.requires_grad_(False)
    return frozen


class Best:
    """The weights with the lowest validation loss so far."""

    def __init__(self):
        self.valid, self.weights = math.inf, {}

    def keep(self, row: dict, model: nn.Module) -> None:
        if row.get("valid", math.inf) < self.valid:
            self.valid, self.weights = row["valid"], deepcopy(model.state_dict())

    def restore(self, model: nn.Module) -> None:
        if self.weights:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict:
        return {"valid": self.valid, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.valid, self.weights = state["valid"], state["weights"]


def out_of_patience(rows: list[dict], patience: int | None) -> bool:
    """Have the last `patience` watches brought no better validation loss? The rows alone decide, so a resumed run agrees."""
    losses = [row["valid"] for row in rows if "valid" in row]
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def not_a_number(stage: Stage, loss: float, norm: Tensor, step: int, run: Path | str | None, safe: int) -> str:
    kept = f"The last good save, {run} with {safe} steps, is untouched" if run and safe else "Nothing was saved yet"
    return (f"step {step} of {stage.name} gave loss {loss} with a gradient of norm {float(norm)}, so training stopped. {kept}. "
            f"Try a lower learning rate than {stage.lr} (with another run file), or look at the data of this step")


# ---------------------------------------------------------------------------------------------- the run file
def save_run(run: Path | str, parts: dict[str, Any], settings: dict, rows: list) -> None:
    """Write beside, then rename: a kill or a full disk in the middle leaves the previous file whole."""
    run = Path(run)
    beside = run.with_name(run.name + ".part")
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"settings": settings, "rows": rows, **{name: part.state_dict() for name, part in parts.items()}}, beside)
        os.replace(beside, run)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        beside.unlink(missing_ok=True)
        raise OSError(
            f"could not save the training run to {run}: {error}. The last good save is untouched; free some space "
            "or choose another folder, and start again with the same arguments to go on from it"
        ) from error


def resume(run: Path | str, parts: dict[str, Any], settings: dict) -> list[dict]:
    """Load a saved run into its parts (model, optimiser, ...) and return its rows; none if there is no such file."""
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
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved["rows"]
