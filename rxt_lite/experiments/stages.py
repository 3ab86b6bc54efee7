"""What each stage of the curriculum is worth: recall after memory-aware training with it, without it, and in its other version.

A *plan* is a list of stages. Every plan ends in memory-aware training and is measured by the same recall on held-out
dialogues, next to three controls. Plans that begin alike share the training of their common beginning.

    ours, published                     the two curricula
    ours without tuning, ...            one early stage left out, or two
    published without tuning, ...       one left out
    ours, memory-aware alone            none of them, on either side
    ours with published tuning, ...     one stage of ours replaced by the published one: what the correction is worth
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import torch
from torch import nn

from rxt_lite.config import BOOK, TINY, ModelConfig
from rxt_lite.data.batches import make_batch
from rxt_lite.data.dialogues import OF_PEOPLE, Dialogue, Dice, Event, World, make_dialogues, world_named
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.data.world import ACKNOWLEDGEMENTS, ATTRIBUTES, PEOPLE
from rxt_lite.experiments.intervals import wilson
from rxt_lite.experiments.recall import with_controls
from rxt_lite.experiments.stability import shape_of
from rxt_lite.models import RxT
from rxt_lite.training.pretraining import READS, joint_lm, stand_in
from rxt_lite.training.recipes import train_on_world
from rxt_lite.training.stages import CURRICULUM, PUBLISHED

SHORT = {"joint_lm": "joint", "interaction_tuning": "tuning", "memory_attention": "attention", "memory_aware": "aware"}  # in names of plans
EARLY = CURRICULUM[:-1]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large an experiment is. `steps`: of every stage; None takes each stage's own."""

    config: ModelConfig
    world: World | str
    steps: int | None
    batch_size: int
    dialogues: int
    seeds: tuple[int, ...]


# Three people with one of four names, eight turns: a model of 0.3 million numbers knows it after a minute of training.
SMALL = World(turns=8, people=3, objects=0, cast=4, templates=1, overwrites=0.3, unknowns=0)
SIZES = {
    "ci": Size(config=replace(TINY, d_model=16, n_heads=2, n_slots=4, d_ff=24, max_len=48), world="easy", steps=3, batch_size=4,
               dialogues=8, seeds=(0,)),
    "cpu": Size(config=replace(BOOK, d_model=64, d_ff=128), world=SMALL, steps=300, batch_size=32, dialogues=256, seeds=(0, 1)),
    "gpu": Size(config=BOOK, world="base", steps=None, batch_size=64, dialogues=512, seeds=(0, 1, 2)),
}


def plans() -> dict[str, tuple[str, ...]]:
    """{"ours": (stage, ...), "ours without joint": ..., ...}, as the head of this file lists them."""
    named = {}
    for side, stages, most in (("ours", CURRICULUM, 2), ("published", PUBLISHED, 1)):
        early = [name for name in stages if name.removesuffix("_published") in EARLY]
        named |= {side: stages, f"{side}, memory-aware alone": tuple(n for n in stages if n not in early)}
        for left_out in (some for many in range(1, most + 1) for some in combinations(early, many)):
            names = " and ".join(SHORT[name.removesuffix("_published")] for name in left_out)
            named[f"{side} without {names}"] = tuple(n for n in stages if n not in left_out)
    for name in CURRICULUM:
        named[f"ours with published {SHORT[name]}"] = tuple(f"{n}_published" if n == name else n for n in CURRICULUM)
    return named


def chosen_plans(only: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The plans named in `only`, in their own order; all of them where it is empty."""
    unknown = set(only) - set(plans())
    if unknown:
        raise ValueError(f"unknown plan {min(unknown)!r}; choose from {', '.join(map(repr, plans()))}")
    return {plan: stages for plan, stages in plans().items() if not only or plan in only}


def trained(folder: Path, size: Size, seed: int, plans: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, RxT, list[dict]]]:
    """Train every plan in a folder of its own; yields plan, model and the rows of the training."""
    made: dict[tuple[str, ...], Path] = {}
    for plan, stages in plans.items():
        run = folder / f"seed-{seed}" / plan.replace(" ", "-").replace(",", "")
        run.mkdir(parents=True, exist_ok=True)
        for n, name in enumerate(stages, start=1):
            file = f"rxt.{name}.run"
            if stages[:n] in made and not (run / file).exists():
                shutil.copyfile(made[stages[:n]] / file, run / file)
            made.setdefault(stages[:n], run)
        yield plan, *train(run, stages, size, seed)


def train(run: Path, stages: Sequence[str], size: Size, seed: int) -> tuple[RxT, list[dict]]:
    return train_on_world(run, stages=stages, config=size.config, worlds=(size.world,), batch_size=size.batch_size, seed=seed,
                          changes={} if size.steps is None else {"steps": size.steps})


def stages_rows(folder: Path | str, size: Size, only: Sequence[str] = ()) -> Iterator[dict]:
    """Rows {"plan", "seed", "recall", "low", "high", "n", "alone", "rival", "memory_reset", "memory_swapped", "last_event_only",
    "cosine", "rank", "loss", "steps"}, one per plan and seed.

    recall      share of planted facts that the model names, all distances together; low, high: its 95 % Wilson interval;
                of facts that nobody else could be taken for, and of those with a rival (see `with_controls`);
                beside it the same with the memory reset, swapped, and of the last event only
    cosine, rank        mean cosine between two slots, and how many directions the slots use, after the dialogues
    loss        of the last step
    """
    tokenizer, tests = world_tokenizer(), make_dialogues(size.world, size.dialogues, split="test_iid", seed=1000)
    for seed in size.seeds:
        for plan, model, rows in trained(Path(folder), size, seed, chosen_plans(only)):
            torch.manual_seed(seed)
            yield {"plan": plan, "seed": seed, **with_controls(model, tests, tokenizer, seed),
                   **slots_after(model, tests, tokenizer), "loss": rows[-1]["loss"], "steps": len(rows)}


@torch.no_grad()
def slots_after(model: RxT, dialogues: Sequence[Dialogue], tokenizer) -> dict[str, float]:
    """{"cosine", "rank"}: mean over layers and dialogues, when all events have been written. Low rank is a collapsed memory."""
    events = make_batch(dialogues, tokenizer, max_event_len=model.config.max_len).tokens.to(model.device)
    stm = model.init_state(len(events))
    for tokens in events.unbind(1):
        stm = model.remember(tokens, stm)
    shapes = shape_of(stm.cpu())
    return {name: sum(shape[name] for shape in shapes) / len(shapes) for name in ("cosine", "rank")}


@torch.no_grad()
def leak_rows(folder: Path | str, size: Size) -> Iterator[dict]:
    """Rows {"stage", "seed", "reads", "surprise"}: nats per token of a joint language model by what its decoder reads.

    A decoder that has learned to look up its own text is good at that ("itself") and lost without ("nothing").
    """
    batch = make_batch(make_dialogues(size.world, size.dialogues, split="test_iid", seed=1000), world_tokenizer(),
                       max_event_len=size.config.max_len)
    for seed in size.seeds:
        for stage in ("joint_lm", "joint_lm_published"):
            with torch.enable_grad():
                model, _ = train(Path(folder) / f"seed-{seed}" / stage, (stage,), size, seed)
            for reads in READS:
                torch.manual_seed(seed)
                surprise = joint_lm(model, batch.to(model.device), nn.Identity(), reads=reads, mask=0.0, noise=0.0)  # no masks: no head
                yield {"stage": stage, "seed": seed, "reads": reads, "surprise": surprise.item()}


BEFORE_MEMORY = {  # what a decoder has been through when it first meets a memory
    "joint": ("joint_lm",),
    "joint, tuning": ("joint_lm", "interaction_tuning"),
    "published joint": ("joint_lm_published",),
    "published joint, tuning": ("joint_lm_published", "interaction_tuning_published"),
}


def whose_rows(folder: Path | str, size: Size) -> Iterator[dict]:
    """Rows {"stages", "seed", "told_of", "share", "low", "high", "n", "chance"}: whose values a decoder takes for the answer.

    It reads the encoding of one event, which tells something of the person that the question is about ("asked") or the same
    of somebody else ("another"), and names a value, the right answer up to there given. share: how often it is the one told
    (95 % Wilson interval), of n questions. A decoder that minds whose it is has a high share for the first and chance for the second.
    """
    tokenizer, n, names = world_tokenizer(), 2 * size.dialogues, PEOPLE[: world_named(size.world).cast]
    asked = {told_of: tell_and_ask(n, names=names, of_another=told_of == "another") for told_of in ("asked", "another")}
    for seed in size.seeds:
        for stages, model, _ in trained(Path(folder), size, seed, BEFORE_MEMORY):
            for told_of, pairs in asked.items():
                named = [takes(model, pair, value, attribute, tokenizer) for pair, value, attribute in pairs]
                low, high = wilson(sum(named), n)
                chance = sum(1 / len(ATTRIBUTES[attribute].values) for _, _, attribute in pairs) / n
                yield {"stages": stages, "seed": seed, "told_of": told_of, "share": sum(named) / n, "low": low, "high": high, "n": n,
                       "chance": chance}


def tell_and_ask(n: int, *, names: Sequence[str], of_another: bool) -> list[tuple[Dialogue, str, str]]:
    """`n` times (a telling and a question about the same attribute, the value told, the attribute)."""
    dice, made = Dice("whose"), []
    for _ in range(n):
        attribute, (asked, other) = dice.pick(OF_PEOPLE), dice.some(names, 2)
        kind = ATTRIBUTES[attribute]
        value = dice.pick(kind.values)
        telling = Event(kind.tell[0].format(e=other if of_another else asked, v=value), ACKNOWLEDGEMENTS[0])
        made.append((Dialogue((telling, Event(kind.ask[0].format(e=asked), kind.answer.format(e=asked, v=value)))), value, attribute))
    return made


@torch.no_grad()
def takes(model: RxT, pair: Dialogue, value: str, attribute: str, tokenizer) -> bool:
    """Is `value` the likeliest of its kind where the answer names one, when the decoder reads the encoding of the telling?"""
    tokens = make_batch([pair], tokenizer, max_event_len=model.config.max_len).tokens.to(model.device)  # (1, 2, T)
    encoded = model.encode(tokens[0]).unflatten(1, (1, 2))  # (L, 1, 2, T, D)
    slots, may_read = stand_in(model, encoded, tokens, "event_before")
    values = ATTRIBUTES[attribute].values
    words = [tokenizer.encode(word, add_special_tokens=False).ids[0] for word in values]
    told = words[values.index(value)]
    place = (tokens[0, 1] == told).nonzero()[-1].item() - 1  # the last token before it
    logits = model.decode(tokens[0], model.read_slots(slots), slots_mask=may_read.unsqueeze(1))[1, place]
    return words[int(logits[words].argmax())] == told
