"""The command line: thin, calls the library, prints a table or, with --json, one JSON object per line."""

import json
import sys
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rxt_lite.grading.cli import grade_command, lab_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Train, question and measure a Reactive Transformer: a model that answers from a fixed-size memory.")

Json = Annotated[bool, typer.Option("--json", help="one JSON object per line on standard output, nothing else there")]
Run = Annotated[Path | None, typer.Argument(help="folder written by `rxt-lite train`; the checkpoint in the package if left out")]


@contextmanager
def clear_errors():
    """A mistake of the caller or of the world is one sentence and exit code 1, not a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"rxt-lite: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("rxt-lite: stopped; start again with the same arguments to go on from the last save", file=sys.stderr)
        raise typer.Exit(130) from None


def show(rows: Iterable[dict], as_json: bool) -> None:
    """JSON lines, each as soon as it is known, or a table when it is complete."""
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    rows = list(rows)
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False) if rows else Table("no rows")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def narrow(rows: Iterable[dict], *columns: str) -> list[dict]:
    """What of these rows fits a terminal; --json has the rest."""
    return [{column: row[column] for column in columns} for row in rows]


def saved(run: Path | None, kind: str):
    """The model called `kind` of a run and its tokenizer."""
    from rxt_lite.data.tokenizer import load_tokenizer
    from rxt_lite.models.checkpoint import load

    folder = (run if run is not None else shipped("book")) / kind
    return load(folder), load_tokenizer(folder / "tokenizer.json")


def shipped(name: str) -> Path:
    """The folder of a checkpoint in the package; ValueError if there is none of that name."""
    place = Path(__file__).parent / "checkpoints"
    names = sorted(folder.name for folder in place.iterdir())
    if name not in names:
        raise ValueError(f"--checkpoint {name!r} is not in the package; choose {', '.join(names)}, or give the folder of a run")
    return place / name


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="folder for the run; an unfinished run in it goes on")],
    preset: Annotated[str, typer.Option(help="shape of the model, see `rxt-lite presets`")] = "",
    world: Annotated[list[str] | None, typer.Option(
        help="preset of the small world, repeatable: easy, base, long, far, overwrite, unsure, things, long_range, hard")] = None,
    stories: Annotated[str, typer.Option(help='real stories instead: a .txt, .json, .parquet file, or "hub"')] = "",
    limit: Annotated[int | None, typer.Option(help="read only the first so many stories")] = None,
    model: Annotated[str, typer.Option(help="rxt, full_history or both")] = "",
    steps: Annotated[int | None, typer.Option(help="training steps")] = None,
    batch_size: Annotated[int | None, typer.Option(help="dialogues a step")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate")] = None,
    seed: Annotated[int, typer.Option(help="of weights, data order and noise")] = 0,
    stage: Annotated[str, typer.Option(help="one stage of the curriculum, from the model in RUN or from nothing: joint_lm, ...")] = "",
    curriculum: Annotated[bool, typer.Option("--curriculum", help="all stages one after the other, from nothing")] = False,
    published: Annotated[bool, typer.Option("--published", help="with --curriculum: the stages as published, not ours")] = False,
    patience: Annotated[int | None, typer.Option(
        help="stop a stage after so many validations (one in 100 steps) without a better one; keep the best")] = None,
    slot_diversity: Annotated[float | None, typer.Option(help="weight of a penalty on slots that are alike")] = None,
    gate_size: Annotated[float | None, typer.Option(help="weight of a penalty on rewriting much of the memory")] = None,
    balance: Annotated[float | None, typer.Option(help="weight of a penalty on crowded experts, where the model has any")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="write RUN/tensorboard too; metrics.jsonl is always there")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="forward pass in bfloat16 on a processor too; a GPU always does")] = False,
    as_json: Json = False,
) -> None:
    """Train on the small world, or on real stories turned into dialogues; report what was reached.

    Without --stage or --curriculum: memory-aware training alone, in lessons. Several processes: torchrun -m rxt_lite.cli train RUN
    """
    from rxt_lite.config import preset as named
    from rxt_lite.experiments.stories import stories_run
    from rxt_lite.training import recipes
    from rxt_lite.training.processes import number, processes
    from rxt_lite.training.stages import CURRICULUM, PUBLISHED

    with clear_errors(), processes():
        if (stage and curriculum) or (published and not curriculum):
            raise ValueError("choose --stage NAME, or --curriculum with or without --published; "
                             "published stages have names of their own, such as joint_lm_published")
        stages = (stage,) if stage else (PUBLISHED if published else CURRICULUM) if curriculum else ()
        penalties = {"slot_diversity": slot_diversity, "gate_size": gate_size, "balance": balance}
        changes = {k: v for k, v in {"steps": steps, "lr": lr, **penalties}.items() if v is not None}
        if (steps is not None and steps < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError(f"--steps {steps} and --batch-size {batch_size} must be at least 1")
        both, rxt_only = tuple(recipes.KINDS), stories or stages or slot_diversity or gate_size
        kinds = {"both": both, "": ("rxt",) if rxt_only else both}.get(model, (model,))
        how = {"seed": seed, "config": named(preset or ("story" if stories else "book")), "tensorboard": tensorboard, "patience": patience}
        how |= ({"batch_size": batch_size} if batch_size else {}) | ({"bf16": True} if bf16 else {})
        if stages:
            how |= {"stages": stages, "changes": changes}
        else:
            how["stage"] = replace(recipes.MEMORY_AWARE if not stories else recipes.ON_STORIES, **changes)
        if stories:
            rows = stories_run(run, stories, limit=limit, kinds=kinds, **how)
        else:
            rows = []
            for kind in kinds:
                _, history = recipes.train_on_world(run, kind=kind, worlds=world or recipes.WORLDS, **how)
                rows += trained_rows(history, model=kind, folder=str(run / kind))
        if number() == 0:
            show(rows, as_json)


def trained_rows(history: list[dict], model: str, folder: str) -> list[dict]:
    """One row for the training, or for each stage of it: how many steps, the mean loss of the last 20, minutes."""
    rows = []
    for stage in dict.fromkeys(row.get("stage") for row in history):
        of_stage = [row for row in history if row.get("stage") == stage]
        last = of_stage[-20:]
        rows.append({"model": model, **({"stage": stage} if stage else {}), "steps": len(of_stage),
                     "loss": sum(r["loss"] for r in last) / len(last), "minutes": last[-1]["seconds"] / 60, "folder": folder})
    return rows


@app.command()
def chat(
    run: Run = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token")] = 0.0,
    top_k: Annotated[int | None, typer.Option()] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    max_new_tokens: Annotated[int, typer.Option()] = 24,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Json = False,
) -> None:
    """Talk to a trained RxT, a message a line. /reset empties its memory, /quit or end of input ends."""
    import torch

    from rxt_lite.conversation import Host, UpdateFailed

    with clear_errors():
        model, tokenizer = saved(run, "rxt")
        how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": torch.Generator().manual_seed(seed)}
        asking, event = sys.stdin.isatty() and not as_json, 0
        with Host(model, tokenizer, max_new_tokens=max_new_tokens) as host:
            conversation = host.open()
            if asking:
                print("The memory is empty. Tell it something, ask later: for example “Tom has the hat.” /reset, /quit")
            while True:
                print("you  > " if asking else "", end="", flush=True)
                line = sys.stdin.readline()
                if not line or line.strip() == "/quit":
                    return
                if line.strip() == "/reset":
                    conversation.clear()
                    print("the memory is empty again", file=sys.stderr)
                    continue
                try:
                    row = answered(conversation, line, how, as_json=as_json, asking=asking)
                except (ValueError, UpdateFailed) as error:  # this message is refused; the conversation and its memory go on
                    print(f"rxt-lite: {error}", file=sys.stderr)
                    if as_json or not asking:
                        raise typer.Exit(1) from None
                    continue
                print(json.dumps({"event": event, **row}) if as_json else "", flush=True)
                event += 1


def answered(conversation, line: str, how: dict, *, as_json: bool, asking: bool) -> dict:
    """Answer `line`, printing as it comes unless `as_json`; what was said and how long each part took."""
    started, text = time.perf_counter(), ""
    answer = conversation.answer(line, **how)
    for piece in answer:
        if not as_json:
            print(("model> " if asking and not text else "") + piece, end="", flush=True)
        text += piece
    heard = time.perf_counter()
    if as_json:  # otherwise the update goes on while the next line is typed
        conversation.settle()
    return {"query": line.strip(), "answer": text, "tokens": len(answer.tokens),
            "answer_ms": round(1e3 * (heard - started), 2), "update_ms": round(1e3 * (time.perf_counter() - heard), 2)}


@app.command()
def recall(
    runs: Annotated[list[Path] | None, typer.Argument(
        help="folders written by `rxt-lite train`, one per training seed; the checkpoint in the package if left out")] = None,
    checkpoint: Annotated[str, typer.Option(help="a checkpoint in the package, where no folder is given")] = "book",
    full: Annotated[bool, typer.Option("--full", help="all tests of the book on 512 dialogues each: minutes")] = False,
    world: Annotated[str, typer.Option(help="preset of the small world")] = "base",
    split: Annotated[str, typer.Option(help="held-out split: test_iid, test_distance, test_combo, ...")] = "test_iid",
    dialogues: Annotated[int, typer.Option(help="how many held-out dialogues; 512 for the book's figures")] = 128,
    data_seed: Annotated[int, typer.Option(help="seed of the held-out dialogues")] = 1000,
    by: Annotated[str, typer.Option(
        help="against: seen (turns since), written (turn of telling), stored (facts told), rivals (others told the same of)")] = "seen",
    verdicts: Annotated[bool, typer.Option(
        "--verdicts", help="instead: how told, changed and unknown facts were answered: right, stale, refused, other")] = False,
    as_json: Json = False,
) -> None:
    """Recall of planted facts by distance: memory on, reset, swapped, last event only, full history, chance."""
    from rxt_lite.data.dialogues import make_dialogues
    from rxt_lite.experiments.recall import count, marks_of, test_sets, verdict_rows
    from rxt_lite.models.checkpoint import read_card

    with clear_errors():
        if dialogues < 2:
            raise ValueError(f"--dialogues {dialogues}: swapping memories needs at least 2 dialogues")
        if full and (world, split, dialogues) != ("base", "test_iid", 128):
            raise ValueError("--full is all tests on 512 dialogues each; leave out --world, --split and --dialogues, or --full")
        tests = test_sets(512, data_seed) if full else {split: make_dialogues(world, dialogues, split=split, seed=data_seed)}
        for run in runs or [shipped(checkpoint)]:
            model, tokenizer = saved(run, "rxt")
            full_history, _ = saved(run, "full_history")
            seed = read_card(run / "rxt")["card"].get("seed", 0)
            for test, asked in tests.items():
                marks = marks_of(model, full_history, asked, tokenizer)
                rows = verdict_rows(marks, seed=seed) if verdicts else count(marks, asked, seed=seed, by=by)
                show([{"test": test, **row} for row in rows] if full else rows, as_json)


@app.command()
def cost(
    turns: Annotated[int, typer.Option(help="length of the conversation")] = 16,
    preset: Annotated[str, typer.Option(help="shape of the model, see `rxt-lite presets`")] = "book",
    query_tokens: Annotated[int, typer.Option(help="tokens of a query with [BOS][Q][A]")] = 12,
    answer_tokens: Annotated[int, typer.Option(help="tokens of an answer with [EOS]")] = 8,
    totals: Annotated[bool, typer.Option("--totals", help="of the whole conversation, with the exponent of their growth")] = False,
    as_json: Json = False,
) -> None:
    """Tokens, multiply-adds and bytes of state for every turn: RxT answer and update, reread, prefix-cached."""
    from rxt_lite.config import preset as named
    from rxt_lite.experiments.cost import cost_rows, total_rows

    with clear_errors():
        show((total_rows if totals else cost_rows)(named(preset), turns, query_tokens, answer_tokens), as_json)


@app.command()
def latency(
    turns: Annotated[int, typer.Option(help="length of the conversation; measured at turns 1, 2, 4, ... and this one")] = 64,
    preset: Annotated[str, typer.Option(help="shape of the models, see `rxt-lite presets`")] = "book",
    query_tokens: Annotated[int, typer.Option(help="tokens of a query with [BOS][Q][A]")] = 32,
    answer_tokens: Annotated[int, typer.Option(help="tokens of an answer with [EOS]; 1: latency of the first token")] = 16,
    rounds: Annotated[int, typer.Option(help="measured rounds, in which all arms take turns")] = 41,
    threads: Annotated[int, typer.Option(help="processor threads to use")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    ratios: Annotated[bool, typer.Option("--ratios", help="time over that of turn 1 in the same round, instead of milliseconds")] = False,
    as_json: Json = False,
) -> None:
    """How long turn n takes: RxT answer and update, reread, prefix-cached. Medians and quartiles over rounds."""
    import torch

    from rxt_lite.config import preset as named
    from rxt_lite.experiments.latency import latency_rows, measure_latency, ratio_rows

    with clear_errors():
        if threads < 1:
            raise ValueError(f"--threads {threads} must be at least 1")
        torch.set_num_threads(threads)
        times = measure_latency(named(preset), turns, query_tokens=query_tokens, answer_tokens=answer_tokens, rounds=rounds, device=device)
        show(ratio_rows(times) if ratios else latency_rows(times), as_json)


@app.command()
def stability(
    run: Run = None,
    trained: Annotated[bool, typer.Option("--trained", help="the model of RUN instead of untrained ones of every kind")] = False,
    preset: Annotated[str, typer.Option(help="shape of the untrained models, see `rxt-lite presets`")] = "tiny",
    paper: Annotated[bool, typer.Option("--paper", help="the paper's settings: no slot names, Gaussian start, no head norm")] = False,
    events: Annotated[int, typer.Option(help="how many events each memory goes through")] = 10_000,
    seeds: Annotated[int, typer.Option(help="how many seeds, counted from 0")] = 1,
    as_json: Json = False,
) -> None:
    """Norm, pair cosine and effective rank of the slots over thousands of events, for every memory attention and gate."""
    from rxt_lite.config import PAPER
    from rxt_lite.config import preset as named
    from rxt_lite.experiments.stability import over_time, stability_rows, stability_table

    with clear_errors():
        if events < 1 or seeds < 1:
            raise ValueError(f"--events {events} and --seeds {seeds} must be at least 1")
        if trained:
            rows = [{"seed": seed, **row} for seed in range(seeds) for row in stability_rows(saved(run, "rxt")[0], events, seed=seed)]
        else:
            rows = stability_table(replace(named(preset), **PAPER) if paper else named(preset), events, range(seeds))
        show(rows if as_json else over_time(rows), as_json)


@app.command()
def stages(
    runs: Annotated[Path, typer.Argument(help="folder for the training runs; unfinished ones go on")] = Path("runs/stages"),
    size: Annotated[str, typer.Option(
        "--profile", help="ci (seconds), cpu (small, two seeds) or gpu (full length, three seeds); by device if left out")] = "",
    plan: Annotated[list[str] | None, typer.Option(
        help="one of the plans, such as 'ours without tuning'; may be given again; all if left out")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="the paper's settings of the model too: no slot names, Gaussian start")] = False,
    leak: Annotated[bool, typer.Option("--leak", help="joint language models by what their decoder reads, instead")] = False,
    whose: Annotated[bool, typer.Option("--whose", help="whose values a decoder names that is new to a memory, instead")] = False,
    as_json: Json = False,
) -> None:
    """Recall with and without each stage of the curriculum, the published stages against ours."""
    from rxt_lite.config import PAPER
    from rxt_lite.experiments.stages import SIZES, leak_rows, stages_rows, whose_rows
    from rxt_lite.profile import profile

    with clear_errors():
        chosen = SIZES[profile(size or None)]
        if paper:
            chosen = replace(chosen, config=replace(chosen.config, **PAPER))
        if sum([leak, whose, bool(plan)]) > 1:
            raise ValueError("--leak, --whose and --plan each ask for rows of their own; give one of them")
        rows = leak_rows(runs, chosen) if leak else whose_rows(runs, chosen) if whose else stages_rows(runs, chosen, plan or ())
        show(rows, as_json)


Size = Annotated[str, typer.Option(
    "--profile", help="ci (seconds), cpu (small, one seed) or gpu (the book's model, three seeds); by device if left out")]


@app.command()
def ablate(
    runs: Annotated[Path, typer.Argument(help="folder for the training runs; unfinished ones go on")] = Path("runs/ablate"),
    size: Size = "",
    table: Annotated[list[str] | None, typer.Option(
        help="gate, memory, start, slots, depth or lessons; may be given again; all if left out")] = None,
    as_json: Json = False,
) -> None:
    """Recall and slots after the same training with one thing changed: gate, memory attention, start, slots, gradient, lessons."""
    from rxt_lite.experiments.ablate import SIZES, ablate_rows
    from rxt_lite.profile import profile

    with clear_errors():
        rows = ablate_rows(runs, SIZES[profile(size or None)], table or ())
        show(rows if as_json else narrow(rows, "table", "variant", "seed", "recall", "n", "memory_reset", "cosine", "rank"), as_json)


@app.command()
def compare(
    runs: Annotated[Path, typer.Argument(help="folder for the training runs; unfinished ones go on")] = Path("runs/compare"),
    size: Size = "",
    stories: Annotated[str | None, typer.Option(help="real stories in place of the small world: a file, or hub")] = None,
    limit: Annotated[int | None, typer.Option(help="how many stories")] = None,
    as_json: Json = False,
) -> None:
    """RxT against stateless decoders of its size and of twice that: without history, with RxT's window, with all of it."""
    from rxt_lite.experiments.compare import SIZES, STORY_SIZES, compare_rows, story_compare_rows
    from rxt_lite.profile import profile

    with clear_errors():
        name = profile(size or None)
        if limit is not None and not stories:
            raise ValueError(f"--limit {limit} counts stories; give --stories too")
        if stories:
            rows, columns = story_compare_rows(runs, STORY_SIZES[name], stories, limit), ("turns", "bits_per_byte", "low", "high", "exact")
        else:
            rows, columns = compare_rows(runs, SIZES[name]), ("parameters", "perplexity", "recall", "n")
        show(rows if as_json else narrow(rows, "model", "context", "seed", *columns, "tokens"), as_json)


@app.command()
def slots(
    run: Run = None,
    world: Annotated[str, typer.Option(help="preset of the small world")] = "base",
    only: Annotated[list[str] | None, typer.Option(help="trace, events, use, survival or probe; all of them if left out")] = None,
    full: Annotated[bool, typer.Option("--full", help="eight times as many dialogues: minutes instead of seconds")] = False,
    as_json: Json = False,
) -> None:
    """What slots hold: maps of writing and reading, gates, how long contents and facts live, what a linear probe reads off."""
    from rxt_lite.experiments.slots import TABLES, slot_tables

    with clear_errors():
        model, tokenizer = saved(run, "rxt")
        many = {"dialogues": 384, "probed": 8192} if full else {}
        for name, rows in slot_tables(model, tokenizer, world, only=only or TABLES, **many):
            if not as_json:  # maps are for figures
                rows = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
            show([{"table": name, **row} for row in rows], as_json)


@app.command()
def forgetting(
    runs: Annotated[Path, typer.Argument(help="folder for the training runs; unfinished ones go on")] = Path("runs/forgetting"),
    size: Annotated[str, typer.Option("--profile", help="ci (seconds), cpu (10 minutes) or gpu; by device if left out")] = "",
    only: Annotated[list[str] | None, typer.Option(help="accuracy, lag, gates, survival, use, pressure or example; else all")] = None,
    as_json: Json = False,
) -> None:
    """MemNet keeps facts in a stream of noise: learned gate, always writing, random slots, memory off, beside the closed forms."""
    from rxt_lite.experiments.forgetting import SIZES, TABLES, forgetting_rows
    from rxt_lite.profile import profile

    with clear_errors():
        if unknown := set(only or ()) - set(TABLES):
            raise ValueError(f"table {min(unknown)!r} is not known; choose from {', '.join(TABLES)}")
        rows = [row for row in forgetting_rows(runs, SIZES[profile(size or None)]) if row["table"] in (only or TABLES)]
        for table in TABLES if not as_json else [""]:  # tables of their own for readers, all rows for machines
            if some := [row for row in rows if as_json or row["table"] == table]:
                show(some, as_json)


@app.command("long-dependency")
def long_dependency(
    runs: Annotated[Path, typer.Argument(help="folder for the training runs; unfinished ones go on")] = Path("runs/long-dependency"),
    size: Annotated[str, typer.Option("--profile", help="ci (seconds), cpu (10 minutes) or gpu; by device if left out")] = "",
    table: Annotated[str, typer.Option(help="grid (window or all, memory on or off), distance or use")] = "grid",
    as_json: Json = False,
) -> None:
    """Facts from beyond the controller's window: with and without a bank, a controller that sees everything, an LSTM. --json has all."""
    from rxt_lite.experiments.long_dependency import SIZES, dependency_rows
    from rxt_lite.profile import profile

    with clear_errors():
        if table not in ("grid", "distance", "use"):
            raise ValueError(f"table {table!r} is not known; choose from grid, distance, use")
        rows = dependency_rows(runs, SIZES[profile(size or None)])
        show((row for row in rows if as_json or row["table"] == table), as_json)


@app.command()
def continual(
    stream: Annotated[list[str] | None, typer.Option(help="permuted, split or pairs; all if left out")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="naive, replay, joint, ewc, lstm, transformer, memnet; else all")] = None,
    seeds: Annotated[int, typer.Option(help="how many seeds, counted from 0")] = 3,
    epochs: Annotated[int, typer.Option(help="of each task")] = 15,
    as_json: Json = False,
) -> None:
    """Five tasks one after the other, and what is left of the earlier ones: ACC, BWT, FWT, forgetting. --json has the matrices too."""
    from rxt_lite.experiments.continual import ARMS, STREAMS, continual_rows

    with clear_errors():
        if seeds < 1 or epochs < 1:
            raise ValueError(f"--seeds {seeds} and --epochs {epochs} must be at least 1")
        rows = continual_rows(stream or tuple(STREAMS), arm or tuple(ARMS), range(seeds), epochs)
        show((row for row in rows if as_json or row["table"] == "measures"), as_json)


@app.command()
def bench(
    sizes: Annotated[list[str] | None, typer.Argument(help="d128, d128_experts, nano_12m; all three if left out")] = None,
    threads: Annotated[int, typer.Option(help="processor threads to use")] = 1,
    rounds: Annotated[int, typer.Option(help="measured rounds, in which all arms take turns")] = 7,
    bf16: Annotated[bool, typer.Option("--bf16", help="autocast to bfloat16")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile our layers")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Json = False,
) -> None:
    """Speed beside a plain loop and PyTorch's own layers, in one run: training, memory update, first token, generation."""
    import torch

    from rxt_lite.experiments.speed import SIZES, speed_rows

    with clear_errors():
        if threads < 1 or rounds < 1:
            raise ValueError(f"--threads {threads} and --rounds {rounds} must be at least 1")
        torch.set_num_threads(threads)
        machine = torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else f"{threads} CPU threads"
        about = {"machine": machine, "precision": "bf16" if bf16 else "fp32", "compiled": compiled}
        for size in sizes or SIZES:
            rows = speed_rows(size, rounds=rounds, bf16=bf16, compiled=compiled, device=device)
            show([{**about, **row} for row in rows] if as_json else rows, as_json)


@app.command()
def presets(as_json: Json = False) -> None:
    """Shapes by name: the book's models, the paper's, larger ones to count costs with; parameters in all, and those a token passes."""
    from rxt_lite.config import MEMNETS, PRESETS
    from rxt_lite.experiments.cost import parameter_counts
    from rxt_lite.models import DecoderLM, MemNet, RxT

    rows = []
    for name, c in (PRESETS | MEMNETS).items():
        kind = MemNet if name in MEMNETS else DecoderLM if name.startswith("stateless") else RxT
        rows.append({"preset": name, "model": kind.__name__, "D": c.d_model, "L": c.n_decoder_layers, "S": c.n_slots,
                     "E": c.n_experts, "V": c.vocab_size, **parameter_counts(kind, c)})
    show(rows, as_json)


@app.command("export-web")
def web(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a saved RxT, for example RUN/rxt")],
    out: Annotated[Path, typer.Option(help="folder for the files that the live page reads")],
) -> None:
    """Write a trained RxT for the browser: float16 weights, tokenizer, shape, and a reference conversation from PyTorch."""
    from rxt_lite.widgets.export import export_web

    with clear_errors():
        show([{"file": str(file), "bytes": file.stat().st_size} for file in export_web(checkpoint, out)], as_json=False)


app.add_typer(lab_app, name="lab")
app.command("grade")(grade_command)


if __name__ == "__main__":
    app()
