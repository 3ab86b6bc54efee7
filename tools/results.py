"""Train the models behind the book's multi-seed figures and write what they reach; goes on where it was stopped.

    make results                     three seeds, about an hour each on two cores
    make results PROFILE=ci          no training: the shipped models on few dialogues, written to _build/results-ci
    python tools/results.py --seeds 0

Writes into book/results, each row with its training seed:

    recall.jsonl     rows of `recall_rows` on held-out dialogues of the world `base`
    hard.jsonl       the same on the world `hard`, against distance, turn of writing and facts stored
    far.jsonl        the same on one question at each distance from 1 to 32, twice as long as anything trained on
    verdicts.jsonl   how questions about told, changed and unknown facts were answered, for each of TESTS
    training.jsonl   the cards of all runs: data, steps, minutes, parameters, hardware

and keeps the models of the first seed, rounded to half precision, as the checkpoint that the package ships.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from rxt_lite.data.dialogues import Dialogue, make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments.recall import BY, count, marks_of, verdict_rows
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import load, read_card, save
from rxt_lite.training.recipes import KINDS, train_on_world

RUNS, SHIPPED = Path("_build/results"), Path("rxt_lite/checkpoints/book")
FOLDERS = {"full": Path("book/results"), "ci": Path("_build/results-ci")}
DIALOGUES = {"full": 512, "ci": 64}
TESTS = {  # name: world, split
    "base": ("base", "test_iid"),
    "hard": ("hard", "test_iid"),
    "far": ("far", "test_distance"),
    "changed": ("base", "test_overwrite"),
    "combinations": ("base", "test_combo"),
    "paraphrase": ("base", "test_paraphrase"),
}


def held_out(n: int) -> dict[str, list[Dialogue]]:
    return {name: make_dialogues(world, n, split=split, seed=1000) for name, (world, split) in TESTS.items()}


def rows_of(models: dict[str, EventModel], tests: dict[str, list[Dialogue]], seed: int) -> Iterator[tuple[str, list[dict]]]:
    """(file, rows) of one training seed: everything that is asked of its models."""
    for name, dialogues in tests.items():
        marks = marks_of(models["rxt"], models["full_history"], dialogues, world_tokenizer())
        if name in ("base", "far"):
            yield {"base": "recall", "far": "far"}[name], count(marks, dialogues, seed=seed, by="seen")
        if name == "hard":
            yield "hard", [{"by": by, **row} for by in BY for row in count(marks, dialogues, seed=seed, by=by)]
        yield "verdicts", [{"test": name, **row} for row in verdict_rows(marks, seed=seed)]


def write(folder: Path, rows: dict[str, list[dict]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, of_file in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_file), encoding="utf-8")


def trained(seeds: Iterable[int]) -> Iterator[tuple[int, dict[str, EventModel], list[dict]]]:
    """(seed, models, cards): trained here, or loaded where an earlier run has finished them."""
    for n, seed in enumerate(seeds):
        run = RUNS / f"seed-{seed}"
        models = {kind: train_on_world(run, kind=kind, seed=seed, bf16=True)[0] for kind in KINDS}
        cards = {kind: read_card(run / kind)["card"] for kind in KINDS}
        if n == 0:
            for kind, model in models.items():
                save(model, SHIPPED / kind, tokenizer=world_tokenizer(), card=cards[kind], dtype=torch.float16)
        yield seed, models, [{"model": kind, **card} for kind, card in cards.items()]


def shipped() -> Iterator[tuple[int, dict[str, EventModel], list[dict]]]:
    cards = {kind: read_card(SHIPPED / kind)["card"] for kind in KINDS}
    yield cards["rxt"]["seed"], {kind: load(SHIPPED / kind) for kind in KINDS}, [{"model": kind, **card} for kind, card in cards.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--profile", choices=list(FOLDERS), default="full")
    asked = parser.parse_args()
    rows: dict[str, list[dict]] = {"training": []}
    tests = held_out(DIALOGUES[asked.profile])
    for seed, models, cards in trained(asked.seeds) if asked.profile == "full" else shipped():
        rows["training"] += cards
        for name, of_file in rows_of(models, tests, seed):
            rows.setdefault(name, []).extend(of_file)
        write(FOLDERS[asked.profile], rows)


if __name__ == "__main__":
    main()
