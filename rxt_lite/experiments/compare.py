"""RxT against stateless decoders of the same and of twice its size, each with three views of the past.

All learn from the same batches with the same loss, the surprise at answer tokens, for the same steps, and are asked the same
held-out questions. What differs is what they may look at when they answer:

    memory        RxT: its STM and the event
    no history    the event alone
    window        the event, and the last whole ones before it of together at most half the tokens that RxT may read in one
    full history  the whole transcript

`story_compare_rows` does the same with real stories told chunk by chunk.

A published comparison (arXiv 2510.03561, table 3) has a stateless model without history labels of its own, so its losses
are not those of the same tokens; here they are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rxt_lite.config import NANO_12M, STORY, ModelConfig
from rxt_lite.data.batches import Batch, make_batch
from rxt_lite.data.dialogues import Dialogue, make_dialogues
from rxt_lite.data.tokenizer import encode_event, world_tokenizer
from rxt_lite.experiments.ablate import SIZES as ABLATE
from rxt_lite.experiments.recall import ARMS, Arm, memory_on, overall, recall_rows, with_interval
from rxt_lite.experiments.stages import Size
from rxt_lite.experiments.stories import answer_bytes, of_turns, per_byte, score_answers, split_stories, turns_of
from rxt_lite.models import DecoderLM, RxT, WindowLM
from rxt_lite.models.base import EventModel
from rxt_lite.training.loop import fit
from rxt_lite.training.losses import answer_logits
from rxt_lite.training.recipes import MEMORY_AWARE, ON_STORIES, lessons, twin
from rxt_lite.training.source import ListBatches, WorldBatches
from rxt_lite.training.stages import Stage

TRANSCRIPT = 1024  # tokens that a full history may have
SIZES = {**ABLATE, "cpu": replace(ABLATE["cpu"], seeds=(0, 1, 2))}
STORY_SIZES = {  # the world is that of the stories
    "ci": replace(ABLATE["ci"], config=replace(ABLATE["ci"].config, vocab_size=512, max_len=128)),
    "cpu": replace(SIZES["cpu"], config=STORY, steps=ON_STORIES.steps, batch_size=8),
    "gpu": replace(ABLATE["gpu"], config=NANO_12M, steps=4000),
}


def wider(config: ModelConfig, max_len: int) -> ModelConfig:
    """A decoder with about the parameters of an RxT of this shape: for BOOK 1.1 times as many."""
    d_head = 2 * round(9 * config.d_head / 16)  # even, for rotary positions
    return replace(config, d_model=config.n_heads * d_head, d_ff=9 * config.d_ff // 8, n_layers=2 * config.n_layers + 1, max_len=max_len)


def arms(config: ModelConfig) -> dict[tuple[str, str], Callable[[], EventModel]]:
    """{(model, context): makes a new one}."""
    of = {("rxt", "memory"): partial(RxT, config)}
    for name, shape in (("equal", wider), ("double", twin)):
        of[name, "no history"] = partial(WindowLM, shape(config, config.max_len), history=0)
        of[name, "window"] = partial(WindowLM, shape(config, 3 * config.max_len // 2), history=config.max_len // 2)
        of[name, "full history"] = partial(DecoderLM, shape(config, TRANSCRIPT))
    return of


def compare_rows(folder: Path | str, size: Size) -> Iterator[dict]:
    """Train every arm with every seed; rows {"model", "context", "seed", "parameters", "perplexity", "accuracy", "recall",
    "low", "high", "n", "tokens", "steps"}.

    perplexity, accuracy   exp of the mean surprise, and the share predicted right, of the true answers' tokens
    recall      share of planted facts that the model names in its own answers; low, high: its 95 % Wilson interval
    tokens      read for the last turn of a dialogue, the update counted: a mean
    """
    tokenizer, tests = world_tokenizer(), make_dialogues(size.world, size.dialogues, split="test_iid", seed=1000)
    config = replace(size.config, vocab_size=tokenizer.get_vocab_size())
    batch = make_batch(tests, tokenizer, max_event_len=config.max_len)
    stage = replace(MEMORY_AWARE, steps=size.steps or MEMORY_AWARE.steps)
    for seed in size.seeds:
        data = WorldBatches(lessons((size.world,), stage.steps), size.batch_size, seed, config.max_len, tokenizer)
        for (name, context), model in trained(folder, config, stage, data, seed):
            asked = recall_rows(model, None, tests, tokenizer, seed=seed, arms=[memory_on])
            yield {"model": name, "context": context, "seed": seed, "parameters": sum(p.numel() for p in model.parameters()),
                   **surprise(model, batch.to(model.device)), **with_interval(*overall(asked, "memory_on")),
                   "tokens": tokens_read(model, batch), "steps": stage.steps}


def trained(folder: Path | str, config: ModelConfig, stage: Stage, data: Callable[[int], Batch],
            seed: int) -> Iterator[tuple[tuple[str, str], EventModel]]:
    """Every arm, trained on the same batches; finished runs are loaded, unfinished ones go on."""
    for (name, context), make in arms(config).items():
        torch.manual_seed(seed)
        model = make().to("cuda" if torch.cuda.is_available() else "cpu")
        fit(model, stage, data, seed=seed, run=Path(folder) / f"seed-{seed}" / f"{name}-{context.replace(' ', '-')}.run", bf16=True)
        yield (name, context), model


def story_compare_rows(folder: Path | str, size: Size, source: str, limit: int | None = None) -> Iterator[dict]:
    """The same arms on the stories of `source`, of which one in twenty is held out; rows {"model", "context", "seed",
    "parameters", "turns", "bits_per_byte", "low", "high", "n", "exact", "asked", "tokens", "steps"}.

    turns       which answers: "all", those to "What happened next?" ("next"), those about what was told ("recall")
    bits_per_byte   of the true answers; low, high: 95 % interval of the mean over the n stories
    exact       share of the `asked` answers whose every token is the most likely one, given the true tokens before it
    tokens      read for the last turn of a story, the update counted: a mean

    The RxT is asked once more with its memory reset, swapped, and with that of the last event only: "memory reset" and so on
    for a context. Stories longer than TRANSCRIPT tokens are left out, for all arms.
    """
    tokenizer, *split = split_stories(source, size.config, limit=limit)
    train, valid = ([d for d in part if story_tokens(d, tokenizer) <= TRANSCRIPT] for part in split)
    valid, config = valid[: size.dialogues], replace(size.config, vocab_size=tokenizer.get_vocab_size())
    stage = replace(ON_STORIES, steps=size.steps)
    for seed in size.seeds:
        data = ListBatches(train, size.batch_size, seed, config.max_len, tokenizer, f"stories of {source}")
        for (name, context), model in trained(folder, config, stage, data, seed):
            last = [tokens_read(model, make_batch([d], tokenizer, max_event_len=config.max_len)) for d in valid]
            about = {"seed": seed, "parameters": sum(p.numel() for p in model.parameters()), "tokens": sum(last) / len(last),
                     "steps": stage.steps}
            for arm in ARMS if name == "rxt" else (memory_on,):
                view = context if arm is memory_on else arm.__name__.replace("_", " ")
                yield from ({"model": name, "context": view, **about, **row} for row in by_turns(model, valid, tokenizer, arm))


def story_tokens(story: Dialogue, tokenizer: Tokenizer) -> int:
    return sum(len(encode_event(tokenizer, event.query, event.answer)) for event in story.events)


def by_turns(model: EventModel, stories: Sequence[Dialogue], tokenizer: Tokenizer, arm: Arm) -> Iterator[dict]:
    """Rows {"turns", "bits_per_byte", "low", "high", "n", "exact", "asked"} of a model and what it may read of its memory."""
    bits, right = score_answers(model, stories, tokenizer, arm)
    for turns in ("all", "next", "recall"):
        asked = sum(len(turns_of(story, turns)) for story in stories)
        yield {"turns": turns, **per_byte(of_turns(bits, stories, turns), answer_bytes(stories, turns)),
               "exact": sum(of_turns(right, stories, turns)) / asked, "asked": asked}


@torch.no_grad()
def surprise(model: EventModel, batch: Batch) -> dict[str, float]:
    """{"perplexity", "accuracy"} over the tokens of the true answers."""
    logits, target = answer_logits(model, batch)
    nll = torch.nn.functional.cross_entropy(logits.float(), target)
    return {"perplexity": math.exp(nll.item()), "accuracy": (logits.argmax(-1) == target).float().mean().item()}


def tokens_read(model: EventModel, batch: Batch) -> float:
    """Tokens that `model` reads to answer the last event and to remember it, a mean over the dialogues."""
    *earlier, last = batch.tokens.unbind(1)
    count = lambda tokens: (tokens > 0).sum(1).float().mean().item()  # noqa: E731
    if isinstance(model, RxT):
        return 2 * count(last)
    transcript = model.init_state(len(last))
    for tokens in earlier:
        transcript = model.remember(tokens.to(model.device), transcript)
    return count(last) + count(transcript)
