"""RxT against stateless decoders of the same and of twice its size, each with three views of the past.

All learn from the same batches with the same loss, the surprise at answer tokens, for the same steps, and are asked the same
held-out questions. What differs is what they may look at when they answer:

    memory        RxT: its STM and the event
    no history    the event alone
    window        the last whole events of at most `max_len` tokens in all: as much as RxT reads in one event
    full history  the whole transcript

A published comparison (arXiv 2510.03561, table 3) has a stateless model without history labels of its own, so its losses
are not those of the same tokens; here they are.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rxt_lite.config import ModelConfig
from rxt_lite.data.batches import Batch, make_batch
from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments.ablate import SIZES as ABLATE
from rxt_lite.experiments.recall import memory_on, overall, recall_rows, with_interval
from rxt_lite.experiments.stages import Size
from rxt_lite.models import DecoderLM, RxT, WindowLM
from rxt_lite.models.base import EventModel
from rxt_lite.training.loop import fit
from rxt_lite.training.losses import answer_logits
from rxt_lite.training.recipes import MEMORY_AWARE, lessons, twin
from rxt_lite.training.source import WorldBatches

TRANSCRIPT = 1024  # tokens that a full history may have
SIZES = {**ABLATE, "cpu": replace(ABLATE["cpu"], seeds=(0, 1, 2))}


def wider(config: ModelConfig, max_len: int) -> ModelConfig:
    """A decoder with about the parameters of an RxT of this shape: for BOOK 1.1 times as many."""
    d_head = 2 * round(9 * config.d_head / 16)  # even, for rotary positions
    return replace(config, d_model=config.n_heads * d_head, d_ff=9 * config.d_ff // 8, n_layers=2 * config.n_layers + 1, max_len=max_len)


def arms(config: ModelConfig) -> dict[tuple[str, str], Callable[[], EventModel]]:
    """{(model, context): makes a new one}."""
    of = {("rxt", "memory"): partial(RxT, config)}
    for name, shape in (("equal", wider), ("double", twin)):
        of[name, "no history"] = partial(WindowLM, shape(config, config.max_len), history=0)
        of[name, "window"] = partial(WindowLM, shape(config, config.max_len))
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
        for (name, context), make in arms(config).items():
            torch.manual_seed(seed)
            model = make().to("cuda" if torch.cuda.is_available() else "cpu")
            run = Path(folder) / f"seed-{seed}" / f"{name}-{context.replace(' ', '-')}.run"
            history = fit(model, stage, data, seed=seed, run=run, bf16=True)
            asked = recall_rows(model, None, tests, tokenizer, seed=seed, arms=[memory_on])
            yield {"model": name, "context": context, "seed": seed, "parameters": sum(p.numel() for p in model.parameters()),
                   **surprise(model, batch.to(model.device)), **with_interval(*overall(asked, "memory_on")),
                   "tokens": tokens_read(model, batch), "steps": len(history)}


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
