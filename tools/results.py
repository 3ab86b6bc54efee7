"""Train the models behind the book's multi-seed figures and write what they reach; goes on where it was stopped.

    python tools/results.py                 three seeds, about half an hour each on one core
    python tools/results.py --seeds 0       one of them

Writes book/results/recall.jsonl (rows of `rxt_lite.experiments.recall.recall_rows`, 512 held-out dialogues of the
world they were trained on), book/results/hard.jsonl (the same on the world `hard`, which they have never seen, against
the distance, the turn of writing and the facts stored)
and book/results/training.jsonl (steps, minutes, parameters, hardware of every run), and keeps the models of the
first seed, rounded to half precision, as the checkpoint that the package ships.
"""

import argparse
import json
from pathlib import Path

import torch

from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments.recall import BY, count, marks_of
from rxt_lite.models.checkpoint import read_card, save
from rxt_lite.training.recipes import KINDS, train_on_world

RUNS, RESULTS, SHIPPED = Path("_build/results"), Path("book/results"), Path("rxt_lite/checkpoints/book")
HELD_OUT = {"split": "test_iid", "seed": 1000}


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    tokenizer, worlds = world_tokenizer(), {name: make_dialogues(name, 512, **HELD_OUT) for name in ("base", "hard")}
    recall, hard, training = [], [], []
    for seed in seeds:
        run = RUNS / f"seed-{seed}"
        models = {kind: train_on_world(run, kind=kind, seed=seed)[0] for kind in KINDS}
        marks = {name: marks_of(models["rxt"], models["full_history"], tests, tokenizer) for name, tests in worlds.items()}
        recall += count(marks["base"], worlds["base"], seed=seed, by="seen")
        for by in BY:
            hard += [{"by": by, **row} for row in count(marks["hard"], worlds["hard"], seed=seed, by=by)]
        for kind, model in models.items():
            card = read_card(run / kind)["card"]
            training.append({"model": kind, **card})
            if seed == seeds[0]:
                save(model, SHIPPED / kind, tokenizer=tokenizer, card=card, dtype=torch.float16)
        write(RESULTS / "recall.jsonl", recall)
        write(RESULTS / "hard.jsonl", hard)
        write(RESULTS / "training.jsonl", training)


if __name__ == "__main__":
    main()
