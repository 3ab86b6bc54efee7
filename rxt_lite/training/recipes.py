"""Whole training runs, from nothing to a saved model; a finished run is loaded, an unfinished one goes on.

A run is a folder:

    rxt/ full_history/                 saved models with tokenizer and card
    rxt.run full_history.run           what `fit` needs to go on
    rxt.metrics.jsonl ...              a line for every step
    rxt.STAGE.run ...                  the same for a stage of the curriculum
    tensorboard/                       where it was asked for
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rxt_lite.config import BOOK, MemNetConfig, ModelConfig
from rxt_lite.data.batches import Batch, make_batch
from rxt_lite.data.dialogues import Dialogue, World, make_dialogues, world_named
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.models import MODELS
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import load, read_card, save
from rxt_lite.training.loop import Stage, fit
from rxt_lite.training.losses import answer_loss
from rxt_lite.training.processes import number, wait_for_all
from rxt_lite.training.source import ListBatches, WorldBatches
from rxt_lite.training.stages import MEMORY_AWARE, stage_called

KINDS = {"rxt": "RxT", "full_history": "DecoderLM"}
ON_STORIES = Stage(name="training on stories", loss=answer_loss, steps=350, lr=3e-3, warmup=50)


WORLDS = ("base", "hard", "long")  # what the last lesson teaches, a batch of each in turn
GROWTH = ((0, 4, 1), (330, 6, 1), (390, 8, 2), (450, 12, 2), (530, 16, 3), (610, 24, 3))  # first step, names, ways to say a thing
MIXED = 750  # the step from which on `worlds` are taught


def lessons(worlds: Sequence[str], steps: int) -> tuple[tuple[int, tuple[World | str, ...]], ...]:
    """Which worlds are taught from which of `steps` on: to tell four names apart, then more and more, then `worlds` in turn.

    With all names from the start a model soon knows *what* was asked about (a pet, a colour) and answers with the
    pet of the wrong person for a very long time. Among four names it learns to look for *whose* pet it was. Let all others
    in at once, and it keeps those four apart and takes the other twenty for one; a few at a time, each finds a place of
    its own. The book's log has the numbers. Worlds of no more names than the first lesson are taught from the start.
    """
    if all(world_named(world).cast <= GROWTH[0][1] for world in worlds):
        return ((0, tuple(worlds)),)
    scale = min(1.0, steps / 900)  # a short training has short lessons

    def names(cast: int, templates: int) -> tuple[World, World]:
        few = World(turns=6, people=3, objects=0, cast=cast, templates=templates, probes=3, overwrites=0, unknowns=0)
        return few, replace(few, people=0, objects=3)  # about people, about things

    return (*((round(scale * first), names(cast, templates)) for first, cast, templates in GROWTH), (round(scale * MIXED), tuple(worlds)))


def twin(config: ModelConfig, max_len: int) -> ModelConfig:
    """The full-history decoder beside an RxT of this shape: wider and deeper, for BOOK 1.9 times the parameters."""
    return replace(config, d_model=3 * config.d_model // 2, d_ff=3 * config.d_ff // 2, n_layers=2 * config.n_layers + 1, max_len=max_len)


def make_model(kind: str, config: ModelConfig, transcript: int, seed: int) -> EventModel:
    """A new model of one of KINDS for dialogues of at most `transcript` tokens, on the GPU if there is one."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of model {kind!r}; choose one of {', '.join(KINDS)}")
    if isinstance(config, MemNetConfig):
        raise ValueError("this is the shape of a MemNet, which tools/results.py trains; choose the preset of an RxT, such as book")
    torch.manual_seed(seed)
    model = MODELS[KINDS[kind]](config if kind == "rxt" else twin(config, transcript))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def train_on_world(run: Path | str, *, kind: str = "rxt", config: ModelConfig = BOOK, stage: Stage = MEMORY_AWARE,
                   stages: Sequence[str] = (), worlds: Sequence[str] = WORLDS, batch_size: int = 64, seed: int = 0,
                   data_seed: int | None = None, **how) -> tuple[EventModel, list[dict]]:
    """Train one model on the embedded small world and save it in the folder `run`; returns it with its rows.

    stages     names of stages to go through one after the other, in place of the one `stage`: see `train_stages`
    data_seed  of the dialogues, for some that no earlier stage has seen; `seed` where it is left out
    """
    tokenizer = world_tokenizer()
    config = replace(config, vocab_size=tokenizer.get_vocab_size())
    model = make_model(kind, config, transcript=1024, seed=seed)

    def batches(stage: Stage) -> WorldBatches:
        taught = lessons(worlds, stage.steps) if stage.lessons else ((0, tuple(worlds)),)
        return WorldBatches(taught, batch_size, seed if data_seed is None else data_seed, config.max_len, tokenizer)

    if how.get("patience") or stages:
        held_out = [make_dialogues(world, 128, split="valid", seed=seed) for world in worlds]
        how.setdefault("valid", [make_batch(some, tokenizer, max_event_len=config.max_len) for some in held_out])
    if stages:
        return train_stages(run, stages, kind, model, tokenizer, batches, seed, **how)
    return model, finish(run, kind, model, tokenizer, stage, batches(stage), seed, **how)


def train_on_dialogues(run: Path | str, dialogues: list[Dialogue], tokenizer: Tokenizer, *, kind: str = "rxt",
                       config: ModelConfig, stage: Stage = MEMORY_AWARE, stages: Sequence[str] = (), batch_size: int = 8,
                       seed: int = 0, name: str = "dialogues", valid: Sequence[Dialogue] = (),
                       **how) -> tuple[EventModel, list[dict]]:
    """The same on a list of dialogues, such as real stories; `valid` is held out for the validation loss."""
    config = replace(config, vocab_size=tokenizer.get_vocab_size())
    model = make_model(kind, config, transcript=16 * config.max_len, seed=seed)
    batches = ListBatches(dialogues, batch_size, seed, config.max_len, tokenizer, name)
    if valid and (how.get("patience") or stages):
        how["valid"] = [make_batch(valid[i : i + 16], tokenizer, max_event_len=config.max_len) for i in range(0, len(valid), 16)]
    if stages:
        return train_stages(run, stages, kind, model, tokenizer, lambda stage: batches, seed, **how)
    return model, finish(run, kind, model, tokenizer, stage, batches, seed, **how)


def train_stages(run: Path | str, names: Sequence[str], kind: str, model: EventModel, tokenizer: Tokenizer,
                 batches: Callable[[Stage], Callable[[int], Batch]], seed: int, *, changes: dict | None = None,
                 **how) -> tuple[EventModel, list[dict]]:
    """Take `model` through the stages called `names`, each with a run file of its own, and save it after the last.

    One stage alone goes on from the model that is saved in `run`, where there is one; several begin with `model`.
    A stage that was finished before is loaded, an unfinished one goes on. `changes` replaces fields of every stage,
    such as {"steps": 100}. Returns the model and the rows of all stages, each with the name of its stage.
    """
    stages = {name: stage_called(name, **(changes or {})) for name in names}
    folder, done, earlier, rows, seconds = Path(run) / kind, (), {}, [], 0.0
    if len(names) == 1 and folder.exists():
        earlier = read_card(folder)["card"]
        done = tuple(earlier.get("stages", (MEMORY_AWARE.name,)))
        saved = load(folder)
        if saved.config != model.config:
            raise ValueError(f"{folder} has another shape than the model to train; use the same preset, or another run folder")
        model.load_state_dict(saved.state_dict())
    # A stage that is only loaded again is not saved again: the model in `folder` may have gone on since.
    finished = set(names) <= set(done) and (Path(run) / f"{kind}.{names[0]}.run").exists()
    for name, stage in stages.items():
        before = done[: done.index(name)] if finished else done
        of_stage = train_stage(run, f"{kind}.{name}", model, stage, batches(stage), seed, after=before, **how)
        rows += [{"stage": name, **row} for row in of_stage]
        seconds += of_stage[-1]["seconds"]
        done = done if finished else (*done, name)
    if not finished:
        of_both = {"trained on": f"{earlier['trained on']}, then {batches(stage)}", "steps": earlier["steps"] + len(rows),
                   "minutes": round(earlier["minutes"] + seconds / 60, 1)} if earlier else {}
        save_model(run, kind, model, tokenizer, str(batches(stage)), rows, seconds, seed, stages=done, **of_both)
    return model, rows


def train_stage(run: Path | str, name: str, model: EventModel, stage: Stage, batches: Callable[[int], Batch], seed: int, *,
                patience: int | None = None, tensorboard: bool = False, **how) -> list[dict]:
    """`fit` with its files in the folder `run`: NAME.run, NAME.metrics.jsonl and, where asked for, tensorboard/NAME."""
    stage = stage if patience is None else replace(stage, patience=patience)
    board = Path(run) / "tensorboard" / name if tensorboard else None
    return fit(model, stage, batches, seed=seed, run=Path(run) / f"{name}.run", tensorboard=board, **how)


def finish(run: Path | str, kind: str, model: EventModel, tokenizer: Tokenizer, stage: Stage, batches, seed: int, **how) -> list[dict]:
    rows = train_stage(run, kind, model, stage, batches, seed, **how)
    save_model(run, kind, model, tokenizer, str(batches), rows, rows[-1]["seconds"] if rows else 0, seed)
    return rows


def save_model(run: Path | str, kind: str, model: EventModel, tokenizer: Tokenizer, data: str, rows: list[dict],
               seconds: float, seed: int, **more) -> None:
    """The trained model with its tokenizer and a card that says where it comes from; the first of several processes writes it."""
    card = {
        "trained on": data,
        "steps": len(rows),
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "hardware": torch.cuda.get_device_name() if model.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "torch": torch.__version__.split("+")[0],
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": rows[-1]["loss"] if rows else None,
        **more,
    }
    wait_for_all()  # nobody may still be reading what is written now
    if number() == 0:
        save(model, Path(run) / kind, tokenizer=tokenizer, card=card)
