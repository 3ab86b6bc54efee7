"""What each choice is worth: the same training with one thing changed, and the recall and the slots that come of it.

    gate      what lets an update in                       lessons   few names first, or all of them at once
    memory    who the slots look at when they write        depth     how many updates back a gradient reaches
    start     how slots begin, and whether they have names slots     how many slots there are, facts told at once counted
                                                           slots, pre-trained    the same after two early stages

Each table has the book's own choice among its rows. Rows of one table differ in one thing, and in nothing else: data, steps
and seeds are the same. `rxt-lite ablate --table gate` prints one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from rxt_lite.config import BOOK, GATES, MEMORY_ATTENTIONS
from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments.recall import with_controls
from rxt_lite.experiments.stages import SIZES as STAGES
from rxt_lite.experiments.stages import SMALL, Size, slots_after
from rxt_lite.models import RxT
from rxt_lite.training.loop import fit
from rxt_lite.training.recipes import MEMORY_AWARE, lessons
from rxt_lite.training.source import WorldBatches
from rxt_lite.training.stages import stage_called

CROWDED = replace(SMALL, turns=9, people=4, facts_per_tell=2, probes=3, overwrites=0, chatter=0)  # twelve facts
MANY_NAMES = replace(SMALL, cast=24, templates=3)
SIZES = {
    "ci": STAGES["ci"],
    "cpu": replace(STAGES["cpu"], seeds=(0,)),
    "gpu": Size(config=BOOK, world="base", steps=1000, batch_size=64, dialogues=512, seeds=(0, 1, 2)),
}


@dataclass(frozen=True)
class Variant:
    """What one row changes: fields of the model's config, options of the loss, the lessons, or the stages before."""

    config: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    lessons: bool = True
    early: tuple[str, ...] = ()


N_SLOTS = (4, 8, 16, 32, 64)
TABLES: dict[str, dict[str, Variant]] = {
    "gate": {name: Variant({"gate": name}) for name in GATES}
    | {"linear, tanh": Variant({"gate": "linear", "gate_activation": "tanh"}),
       "linear, one for all slots": Variant({"gate": "linear", "gate_per_slot": False})},
    "memory": {name: Variant({"memory_attention": name}) for name in MEMORY_ATTENTIONS},
    "start": {f"{start}, {'named' if names else 'nameless'}": Variant({"initial_slots": start, "slot_embeddings": names})
              for start in ("learned", "gaussian") for names in (True, False)},
    "slots": {str(n): Variant({"n_slots": n}) for n in N_SLOTS},
    "slots, pre-trained": {str(n): Variant({"n_slots": n}, early=("joint_lm", "memory_attention")) for n in N_SLOTS},
    "depth": {"all": Variant()} | {str(k): Variant(options={"depth": k}) for k in (4, 2, 1)},
    "lessons": {"few names first": Variant(), "all names at once": Variant(lessons=False)},
}
WORLD_OF = {"slots": CROWDED, "slots, pre-trained": CROWDED, "lessons": MANY_NAMES}  # all other tables use the world of their size
LONGER = {"lessons": 3, "slots": 4, "slots, pre-trained": 4}  # times the steps: a name more is a lesson more, twelve facts are many


def ablate_rows(folder: Path | str, size: Size, tables: Sequence[str] = ()) -> Iterator[dict]:
    """Train every variant with every seed; rows {"table", "variant", "seed", "parameters", "recall", "low", "high", "n",
    "alone", "rival", "memory_reset", "memory_swapped", "last_event_only", "cosine", "rank", "loss", "steps"}.

    recall      share of planted facts that the model names in its own answers; low, high: its 95 % Wilson interval;
                of facts that nobody else could be taken for, and of those with a rival (see `with_controls`);
                beside it the same with the memory reset, swapped, and of the last event only
    cosine, rank   mean cosine of two slots after the dialogues, and how many directions the slots use
    loss, steps    of the last step of memory-aware training, and how many it had
    """
    for table in tables or TABLES:
        if table not in TABLES:
            raise ValueError(f"unknown table {table!r}; choose from {', '.join(TABLES)}")
        for seed in size.seeds:
            for name, variant in TABLES[table].items():
                yield {"table": table, "variant": name, "seed": seed, **measure(folder, size, table, name, variant, seed)}


def measure(folder: Path | str, size: Size, table: str, name: str, variant: Variant, seed: int) -> dict:
    tokenizer, world = world_tokenizer(), WORLD_OF.get(table, size.world)
    config = replace(size.config, vocab_size=tokenizer.get_vocab_size(), **variant.config)
    steps = size.steps or MEMORY_AWARE.steps
    stages = [stage_called(early, steps=steps) for early in variant.early]
    stages.append(replace(MEMORY_AWARE, steps=LONGER.get(table, 1) * steps, options=variant.options))
    torch.manual_seed(seed)
    model = RxT(config).to("cuda" if torch.cuda.is_available() else "cpu")
    run = Path(folder) / f"seed-{seed}" / f"{table}-{name}".replace(", ", "-").replace(" ", "-")
    for n, stage in enumerate(stages):
        taught = lessons((world,), stage.steps) if variant.lessons and stage.lessons else ((0, (world,)),)
        data = WorldBatches(taught, size.batch_size, seed, config.max_len, tokenizer)
        of_stage = "".join(f".{early}" for early in variant.early[n : n + 1])
        history = fit(model, stage, data, seed=seed, run=Path(f"{run}{of_stage}.run"), after=variant.early[:n], bf16=True)
    tests = make_dialogues(world, size.dialogues, split="test_iid", seed=1000)
    return {"parameters": sum(p.numel() for p in model.parameters()), **with_controls(model, tests, tokenizer, seed),
            **slots_after(model, tests, tokenizer), "loss": history[-1]["loss"], "steps": len(history)}
