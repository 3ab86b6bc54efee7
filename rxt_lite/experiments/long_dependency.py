"""Long dependencies: what was told longer ago than the controller can see.

The streams of forgetting.py, one step an event: noise with a few facts in it, then a question for each fact as the last steps. A
step is a bag of two tokens, so that nobody has to learn first which value stands behind which key. The models:

    memnet        a controller with a window of 4 steps, and a bank of 6 slots
    window        the same controller alone: it reaches layers x (window - 1) steps back and no further
    memnet, full  a controller that sees everything, and a bank: as the public description of MemNet has it
    full          that controller alone
    lstm          a recurrent network with two vectors of state; its steps are cheap, so it gets eight times as many

The two-by-two table, window or all, memory on or off, is the lesson: where the controller sees everything a task says nothing about
memory. It counts questions about facts beyond the window's reach only. Models are trained on streams of 24 steps and tested on
longer ones too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rxt_lite.config import MemNetConfig
from rxt_lite.experiments.forgetting import Stream, Streams, Task, draw, wrote
from rxt_lite.experiments.intervals import wilson
from rxt_lite.experiments.slots import births, contents, effective_slots
from rxt_lite.experiments.trace import trace_of
from rxt_lite.models.memnet import MemNet
from rxt_lite.training.loop import Stage, fit

TASK = Task(steps=24, facts=3)


class Recurrent(nn.Module):
    """An LSTM over bags of tokens (B, M, W) -> logits (B, M, V)."""

    def __init__(self, config: MemNetConfig):
        super().__init__()
        self.config, D = config, config.d_model
        self.embedding = nn.Embedding(config.vocab_size, D)
        self.lstm = nn.LSTM(D, 2 * D, batch_first=True)
        self.head = nn.Linear(2 * D, config.vocab_size)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens).sum(2))[0])


def with_memory(model: MemNet, tokens: Tensor) -> Tensor:
    return model.forward_sequence(tokens).logits[:, :, 0]


def without_memory(model: MemNet, tokens: Tensor) -> Tensor:
    return model.forward_sequence(tokens, memory=False).logits[:, :, 0]


@dataclass(frozen=True)
class Arm:
    """A model, and how it is run: bags of tokens (B, M, W) -> logits (B, M, V)."""

    make: Callable[[MemNetConfig], nn.Module]
    logits: Callable[[nn.Module, Tensor], Tensor]
    window: int | None
    memory: bool
    longer: int = 1  # times as many steps of training


ARMS = {
    "memnet": Arm(MemNet, with_memory, 4, True),
    "window": Arm(MemNet, without_memory, 4, False),
    "memnet, full": Arm(MemNet, with_memory, None, True),
    "full": Arm(MemNet, without_memory, None, False),
    "lstm": Arm(Recurrent, lambda model, tokens: model(tokens), None, False, longer=8),
}
GRID = ("memnet", "window", "memnet, full", "full")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the experiment is."""

    config: MemNetConfig
    steps: int
    short: int  # of these, with streams no longer than the bank
    batch_size: int
    streams: int  # held out
    lengths: tuple[int, ...]  # of streams that are tested on
    seeds: tuple[int, ...]


_SMALL = MemNetConfig(vocab_size=TASK.vocab_size, d_model=32, n_heads=2, n_layers=1, d_ff=64, max_len=256, n_slots=6, bank_heads=1,
                      top_k=6, d_bottleneck=16, write_policy="lru", decay=None)
SIZES = {
    "ci": Size(config=replace(_SMALL, d_model=8, d_ff=8), steps=3, short=1, batch_size=4, streams=8, lengths=(24, 48), seeds=(0,)),
    "cpu": Size(config=_SMALL, steps=220, short=100, batch_size=64, streams=256, lengths=(24, 48, 96, 192), seeds=(0, 1, 2)),
    "gpu": Size(config=_SMALL, steps=600, short=200, batch_size=64, streams=1024, lengths=(24, 48, 96, 192), seeds=(0, 1, 2)),
}


def reach(config: MemNetConfig, window: int | None) -> int | None:
    """How many steps back a controller of this shape can see; None: all of them."""
    return None if window is None else config.n_layers * (window - 1)


def sequence(stream: Stream) -> tuple[Tensor, Tensor]:
    """The stream and its questions (B, T + F, 2), and how many steps ago each fact was told when it is asked for (B, F)."""
    T, F_ = stream.events.shape[1], stream.at.shape[1]
    return torch.cat([stream.events, stream.queries], dim=1), T + torch.arange(F_, device=stream.at.device) - stream.at


def dependency_loss(model: nn.Module, stream: Stream, *, arm: str) -> Tensor:
    """Mean surprise at the values asked for, in nats: a scalar."""
    logits = ARMS[arm].logits(model, sequence(stream)[0])[:, stream.events.shape[1] :]
    return F.cross_entropy(logits.flatten(0, 1), stream.values.flatten())


def train(folder: Path | str, size: Size, arm: str, seed: int) -> nn.Module:
    """The model of one arm and seed, trained here or loaded where an earlier call has finished it."""
    torch.manual_seed(seed)
    model = ARMS[arm].make(replace(size.config, window=ARMS[arm].window))
    stage = Stage(name=f"long dependency, {arm}", loss=dependency_loss, options={"arm": arm}, steps=size.steps * ARMS[arm].longer, lr=6e-3,
                  warmup=min(20, size.steps))
    batches = Streams(TASK, size.batch_size, seed, size.short * ARMS[arm].longer, size.config.n_slots)
    fit(model, stage, batches, seed=seed, run=Path(folder) / f"{arm.replace(', ', '-')}-{seed}.run", bf16=False)
    return model


@torch.no_grad()
def marks(model: nn.Module, arm: str, stream: Stream) -> tuple[Tensor, Tensor]:
    """Was each question answered rightly, and how many steps ago was it told: two tensors (B, F)."""
    tokens, distance = sequence(stream)
    logits = ARMS[arm].logits(model, tokens)[:, stream.events.shape[1] :]
    return logits.argmax(-1) == stream.values, distance


def share(right: Tensor) -> dict:
    low, high = wilson(int(right.sum()), right.numel())
    return {"accuracy": right.float().mean().item(), "low": low, "high": high, "n": right.numel()}


def distance_rows(model: nn.Module, arm: str, size: Size) -> Iterator[dict]:
    """Rows {"length", "distance", "to", "accuracy", "low", "high", "n"}: by steps since telling, in eight equal parts of a stream."""
    for length in size.lengths:
        right, distance = marks(model, arm, draw(replace(TASK, steps=length), size.streams, torch.Generator().manual_seed(20_000 + length)))
        edges = [1 + (length + TASK.facts) * n // 8 for n in range(9)]
        for low, high in zip(edges, edges[1:]):
            if (here := (distance >= low) & (distance < high)).any():
                yield {"length": length, "distance": low, "to": high - 1, **share(right[here])}


def grid_row(model: nn.Module, arm: str, size: Size) -> dict:
    """{"window", "memory", "accuracy", "low", "high", "n", "chance"}: facts beyond the reach of the window, whoever is asked."""
    right, distance = marks(model, arm, draw(TASK, 2 * size.streams, torch.Generator().manual_seed(20_000)))
    beyond = distance > reach(size.config, ARMS["memnet"].window)
    return {"window": ARMS[arm].window or "all", "memory": "on" if ARMS[arm].memory else "off", **share(right[beyond]),
            "chance": 1 / TASK.values}


@torch.no_grad()
def use_rows(model: MemNet, size: Size, sequences: int = 64) -> Iterator[dict]:
    """Rows {"length", "reuse", "effective_slots", "sparsity", "gate_fact", "gate_noise"}: how the bank is used at each length.

    reuse             events after it that read what a fact has written with more than a fair share, mean over facts
    effective_slots   of the questions; sparsity: 1 - effective slots / slots
    """
    for length in size.lengths:
        stream = draw(replace(TASK, steps=length), min(sequences, size.streams), torch.Generator().manual_seed(30_000 + length))
        tokens, _ = sequence(stream)
        steps = model.forward_sequence(tokens)
        reuse = []
        for row in range(len(tokens)):
            facts, written = set(stream.at[row].tolist()), wrote(steps, row)
            of_row = contents(trace_of(model, tokens, steps, row), written)
            reuse += [content.reuse for born, content in zip(births(written), of_row) if born in facts]
        effective = effective_slots(steps.read[:, length:]).mean().item()
        gate = steps.gate[:, :length].amax(-1)
        yield {"length": length, "reuse": sum(reuse) / max(1, len(reuse)), "effective_slots": effective,
               "sparsity": 1 - effective / size.config.n_slots, "gate_fact": gate[stream.is_fact].mean().item(),
               "gate_noise": gate[~stream.is_fact].mean().item()}


def dependency_rows(folder: Path | str, size: Size, arms: Sequence[str] = tuple(ARMS)) -> Iterator[dict]:
    """Train every arm with every seed; rows {"table": "grid", "distance" or "use", "model", "seed", ...}, see the functions above."""
    for seed in size.seeds:
        for arm in arms:
            if arm not in ARMS:
                raise ValueError(f"unknown model {arm!r}; choose from {'; '.join(ARMS)}")
            model = train(folder, size, arm, seed)
            of = {"distance": distance_rows(model, arm, size), "grid": [grid_row(model, arm, size)] if arm in GRID else [],
                  "use": use_rows(model, size) if ARMS[arm].memory else []}
            for table, rows in of.items():
                yield from ({"table": table, "model": arm, "seed": seed, **row} for row in rows)
