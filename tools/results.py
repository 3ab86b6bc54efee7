"""Train the models behind the book's figures anew and write what they reach; goes on where it was stopped.

    make results                                 everything: hours on two cores
    make results PROFILE=ci                      the shipped models on few dialogues, and tiny models, into _build/results-ci
    python tools/results.py --only ablate        one of PARTS; may be given several

Writes into book/results, each row with the commit, the profile and the hardware it was made with:

    recall.jsonl     rows of `recall_rows` on held-out dialogues of the world `base`, each with its training seed
    hard.jsonl       the same on the world `hard`, against distance, turn of writing and facts stored
    far.jsonl        the same on one question at each distance from 1 to 32, twice as long as anything trained on
    verdicts.jsonl   how questions about told, changed and unknown facts were answered, for each test
    training.jsonl   the cards of all runs: data, steps, minutes, parameters
    compare.jsonl    RxT beside stateless decoders of its size and of twice that, with three views of the past
    story_compare.jsonl     the same on real stories; only with `--only story_compare --stories FILE`, or hub for FILE
    ablate.jsonl     the same training with one thing changed
    stages.jsonl     the published curriculum beside ours
    whose.jsonl      whose values a decoder names after the early stages: of the one asked about, or of anybody
    cost.jsonl       tokens, multiply-adds and state of whole conversations, and how they grow
    latency.jsonl    what a turn takes, on this machine
    forgetting.jsonl MemNet: facts in a stream of noise, by arm, beside the closed forms
    memnet.jsonl     recall by distance of a MemNet in the small world, as recall.jsonl, and what its state takes
    long_dependency.jsonl   MemNet: facts from beyond the controller's window, with and without a bank
    continual.jsonl  five tasks one after the other, with and without a bank: the task matrices and their measures
    slots.jsonl      how long contents and facts live in the slots of the shipped model, and what a probe reads off them

and keeps the models of the first seed, rounded to half precision, as the checkpoint that the package ships.
"""

import argparse
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rxt_lite.config import BOOK, MEMNET
from rxt_lite.data.dialogues import Dialogue, make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments import ablate, compare, continual, forgetting, long_dependency, stages
from rxt_lite.experiments.cost import cost_rows, total_rows
from rxt_lite.experiments.latency import latency_rows, measure_latency
from rxt_lite.experiments.recall import BY, count, marks_of, recall_rows, test_sets, verdict_rows
from rxt_lite.experiments.slots import slot_tables
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import load, read_card, save
from rxt_lite.models.memnet import MemNet
from rxt_lite.training.loop import fit
from rxt_lite.training.recipes import KINDS, MEMORY_AWARE, lessons, train_on_world
from rxt_lite.training.source import WorldBatches

RUNS, SHIPPED = Path("_build/results"), Path("rxt_lite/checkpoints/book")
FOLDERS = {"full": Path("book/results"), "ci": Path("_build/results-ci")}
STEPS = {"rxt": 1500, "full_history": 1000}
PRACTISED = {  # at the end, by the RxT: half of the questions of "unsure" have no answer, and "things" are what it still confused
    "practice": ("unsure", "hard", "long"),
    "more_practice": ("unsure", "hard", "long", "things"),
}
SIZE_OF = {"full": "cpu", "ci": "ci"}  # which of an experiment's SIZES
DIALOGUES = {"full": 512, "ci": 64}

Rows = Iterator[tuple[str, list[dict]]]  # (name of a file, rows to add to it)


# ---------------------------------------------------------------------------------------------- the book's models
def recall_part(profile: str, seeds: Iterable[int]) -> Rows:
    tests = test_sets(DIALOGUES[profile], seed=1000)
    for seed, models, cards in trained(seeds) if profile == "full" else shipped():
        yield "training", cards
        yield from rows_of(models, tests, seed)


def rows_of(models: dict[str, EventModel], tests: dict[str, list[Dialogue]], seed: int) -> Rows:
    """Everything that is asked of the models of one training seed."""
    for name, dialogues in tests.items():
        marks = marks_of(models["rxt"], models.get("full_history"), dialogues, world_tokenizer())
        if name in ("base", "far"):
            yield {"base": "recall", "far": "far"}[name], count(marks, dialogues, seed=seed, by="seen")
        if name == "hard":
            yield "hard", [{"by": by, **row} for by in BY for row in count(marks, dialogues, seed=seed, by=by)]
        yield "verdicts", [{"test": name, **row} for row in verdict_rows(marks, seed=seed)]


def trained(seeds: Iterable[int]) -> Iterator[tuple[int, dict[str, EventModel], list[dict]]]:
    """(seed, models, cards): trained here, or loaded where an earlier run has finished them; the twin with the first seed alone."""
    for n, seed in enumerate(seeds):
        run, kinds = RUNS / f"seed-{seed}", tuple(KINDS) if n == 0 else ("rxt",)
        stage = {kind: replace(MEMORY_AWARE, steps=STEPS[kind]) for kind in kinds}
        models = {kind: train_on_world(run, kind=kind, seed=seed, stage=stage[kind], bf16=True)[0] for kind in kinds}
        for n_th, (name, worlds) in enumerate(PRACTISED.items()):
            how = {"worlds": worlds, "data_seed": seed + 100 * n_th, "bf16": True, "valid": ()}
            models["rxt"], _ = train_on_world(run, seed=seed, stages=(name,), **how)
        cards = {kind: read_card(run / kind)["card"] for kind in kinds}
        if n == 0:
            for kind, model in models.items():
                save(model, SHIPPED / kind, tokenizer=world_tokenizer(), card=cards[kind], dtype=torch.float16)
        yield seed, models, [{"model": kind, **card} for kind, card in cards.items()]


def shipped() -> Iterator[tuple[int, dict[str, EventModel], list[dict]]]:
    cards = {kind: read_card(SHIPPED / kind)["card"] for kind in KINDS}
    yield cards["rxt"]["seed"], {kind: load(SHIPPED / kind) for kind in KINDS}, [{"model": kind, **card} for kind, card in cards.items()]


# ---------------------------------------------------------------------------------------------- everything else
def compare_part(profile: str, seeds: Iterable[int]) -> Rows:
    for row in compare.compare_rows(RUNS / profile / "compare", compare.SIZES[SIZE_OF[profile]]):
        yield "compare", [row]


def story_compare_part(profile: str, seeds: Iterable[int], source: str) -> Rows:
    for row in compare.story_compare_rows(RUNS / profile / "story-compare", compare.STORY_SIZES[SIZE_OF[profile]], source):
        yield "story_compare", [row]


def ablate_part(profile: str, seeds: Iterable[int]) -> Rows:
    for row in ablate.ablate_rows(RUNS / profile / "ablate", ablate.SIZES[SIZE_OF[profile]]):
        yield "ablate", [row]


def stages_part(profile: str, seeds: Iterable[int]) -> Rows:
    for row in stages.stages_rows(RUNS / profile / "stages", stages.SIZES[SIZE_OF[profile]]):
        yield "stages", [row]
    for row in stages.whose_rows(RUNS / profile / "whose", stages.SIZES[SIZE_OF[profile]]):
        yield "whose", [row]


def cost_part(profile: str, seeds: Iterable[int]) -> Rows:
    for turns in (16, 64, 256, 1000):
        yield "cost", total_rows(BOOK, turns, query_tokens=12, answer_tokens=8)


def latency_part(profile: str, seeds: Iterable[int]) -> Rows:
    yield "latency", latency_rows(measure_latency(BOOK, 64, query_tokens=32, answer_tokens=16, rounds=41 if profile == "full" else 5))


def slots_part(profile: str, seeds: Iterable[int]) -> Rows:
    many = {"dialogues": 384, "probed": 8192} if profile == "full" else {}
    for table, rows in slot_tables(load(SHIPPED / "rxt"), world_tokenizer(), only=("events", "use", "survival", "probe"), **many):
        yield "slots", [{"table": table, **row} for row in rows]


def memnet_part(profile: str, seeds: Iterable[int]) -> Rows:
    steps, few = (2000, list(seeds)[:1]) if profile == "full" else (3, [0])
    tokenizer = world_tokenizer()
    config = replace(MEMNET, vocab_size=tokenizer.get_vocab_size())
    for seed in few:
        torch.manual_seed(seed)
        model = MemNet(config)
        batches = WorldBatches(lessons(("base",), steps), 32, seed, config.max_len, tokenizer)
        stage = replace(MEMORY_AWARE, steps=steps, lr=4e-3)
        fit(model, stage, batches, seed=seed, run=RUNS / profile / "memnet" / f"{seed}.run", bf16=False)
        state = {"state_bytes": cost_rows(config, 1)[0]["state_bytes"], "parameters": sum(p.numel() for p in model.parameters())}
        tests = make_dialogues("base", DIALOGUES[profile], split="test_iid", seed=1000)
        yield "memnet", [{**row, **state} for row in recall_rows(model, None, tests, tokenizer, seed=seed)]


def forgetting_part(profile: str, seeds: Iterable[int]) -> Rows:
    for row in forgetting.forgetting_rows(RUNS / profile / "forgetting", forgetting.SIZES[SIZE_OF[profile]]):
        yield "forgetting", [row]


def dependency_part(profile: str, seeds: Iterable[int]) -> Rows:
    size = long_dependency.SIZES[SIZE_OF[profile]]
    for row in long_dependency.dependency_rows(RUNS / profile / "long-dependency", size):
        yield "long_dependency", [row]


def continual_part(profile: str, seeds: Iterable[int]) -> Rows:
    few = {"seeds": (0,), "epochs": 1} if profile == "ci" else {}
    for stream in continual.STREAMS:
        yield "continual", list(continual.continual_rows([stream], **few))


PARTS = {"recall": recall_part, "cost": cost_part, "latency": latency_part, "slots": slots_part, "compare": compare_part,
         "ablate": ablate_part, "stages": stages_part, "memnet": memnet_part, "forgetting": forgetting_part,
         "continual": continual_part, "long_dependency": dependency_part, "story_compare": story_compare_part}


# ---------------------------------------------------------------------------------------------- where rows go
def origin(profile: str) -> dict[str, str]:
    """What every row says about where it comes from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = f"{platform.machine()} processor, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return {"commit": commit or "none", "profile": profile, "hardware": device}


def write(folder: Path, name: str, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds of the book's models")
    parser.add_argument("--profile", choices=list(FOLDERS), default="full")
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=[name for name in PARTS if name != "story_compare"])
    parser.add_argument("--stories", metavar="FILE", default="hub", help="where the stories of story_compare come from")
    asked = parser.parse_args()
    parts = PARTS | {"story_compare": partial(story_compare_part, source=asked.stories)}
    of_file: dict[str, list[dict]] = {}
    about = origin(asked.profile)
    for part in asked.only:
        for name, rows in parts[part](asked.profile, asked.seeds):
            of_file.setdefault(name, []).extend({**row, **about} for row in rows)
            write(FOLDERS[asked.profile], name, of_file[name])


if __name__ == "__main__":
    main()
