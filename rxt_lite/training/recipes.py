"""Whole training runs, from nothing to a saved model; a finished run is loaded, an unfinished one goes on.

A run is a folder:

    rxt/ full_history/                 saved models with tokenizer and card
    rxt.run full_history.run           what `fit` needs to go on
"""

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rxt_lite.config import BOOK, ModelConfig
from rxt_lite.data.dialogues import Dialogue, World
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.models import MODELS
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import save
from rxt_lite.training.loop import Stage, fit
from rxt_lite.training.losses import answer_loss
from rxt_lite.training.source import ListBatches, WorldBatches

KINDS = {"rxt": "RxT", "full_history": "DecoderLM"}
MEMORY_AWARE = Stage(name="memory-aware training", loss=answer_loss, steps=2300)
ON_STORIES = Stage(name="training on stories", loss=answer_loss, steps=350, lr=3e-3, warmup=50)


def lessons(world: str, steps: int) -> tuple[tuple[int, tuple[World | str, ...]], ...]:
    """Which worlds are taught from which of `steps` on: to tell a few names apart, then all names, then `world`.

    With all names from the start a model soon knows *what* was asked about (a pet, a colour) and answers with the
    pet of the wrong person for a very long time: the book's log has the numbers. Among four names it learns to
    look for *whose* pet it was, and this carries over to all others at once.
    """
    few = World(turns=6, people=3, objects=0, cast=4, templates=1, probes=3, overwrites=0, unknowns=0)
    many = replace(few, cast=World().cast, templates=3)
    things = {"people": 0, "objects": 3}
    return ((0, (few, replace(few, **things))), (11 * steps // 23, (many, replace(many, **things))), (13 * steps // 23, (world,)))


def twin(config: ModelConfig, max_len: int) -> ModelConfig:
    """The full-history decoder beside an RxT of this shape: twice the decoder layers, in place of encoder and memory."""
    return replace(config, n_layers=2 * config.n_layers, max_len=max_len)


def make_model(kind: str, config: ModelConfig, transcript: int, seed: int) -> EventModel:
    """A new model of one of KINDS for dialogues of at most `transcript` tokens, on the GPU if there is one."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of model {kind!r}; choose one of {', '.join(KINDS)}")
    torch.manual_seed(seed)
    model = MODELS[KINDS[kind]](config if kind == "rxt" else twin(config, transcript))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def train_on_world(run: Path | str, *, kind: str = "rxt", config: ModelConfig = BOOK, stage: Stage = MEMORY_AWARE,
                   world: str = "base", batch_size: int = 64, seed: int = 0,
                   **how) -> tuple[EventModel, list[dict]]:
    """Train one model on the embedded small world and save it in the folder `run`; returns it with its rows."""
    tokenizer = world_tokenizer()
    config = replace(config, vocab_size=tokenizer.get_vocab_size())
    model = make_model(kind, config, transcript=1024, seed=seed)
    batches = WorldBatches(lessons(world, stage.steps), batch_size, seed, config.max_len, tokenizer)
    return model, finish(run, kind, model, tokenizer, stage, batches, seed, **how)


def train_on_dialogues(run: Path | str, dialogues: list[Dialogue], tokenizer: Tokenizer, *, kind: str = "rxt",
                       config: ModelConfig, stage: Stage = MEMORY_AWARE, batch_size: int = 8, seed: int = 0,
                       name: str = "dialogues", **how) -> tuple[EventModel, list[dict]]:
    """The same on a list of dialogues, such as real stories."""
    config = replace(config, vocab_size=tokenizer.get_vocab_size())
    model = make_model(kind, config, transcript=16 * config.max_len, seed=seed)
    batches = ListBatches(dialogues, batch_size, seed, config.max_len, tokenizer, name)
    return model, finish(run, kind, model, tokenizer, stage, batches, seed, **how)


def finish(run: Path | str, kind: str, model: EventModel, tokenizer: Tokenizer, stage: Stage, batches, seed: int, **how) -> list[dict]:
    rows = fit(model, stage, batches, seed=seed, run=Path(run) / f"{kind}.run", **how)
    card = {
        "trained on": str(batches),
        "steps": stage.steps,
        "seed": seed,
        "minutes": round(rows[-1]["seconds"] / 60, 1) if rows else 0,
        "hardware": torch.cuda.get_device_name() if model.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "torch": torch.__version__.split("+")[0],
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": rows[-1]["loss"] if rows else None,
    }
    save(model, Path(run) / kind, tokenizer=tokenizer, card=card)
    return rows

