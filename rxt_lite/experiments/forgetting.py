"""Learned forgetting: a stream of noise with a few facts in it, and a bank too small to keep everything.

A stream has `steps` events of two tokens. At `facts` of them, drawn at random, a key is told with its value, each key once; all
others are two tokens of noise. Then every key that was told is asked for. The bank has fewer slots than the stream has events,
so it is the write gate that decides what is forgotten. The arms:

    learned     the gate learns, the least recently used slot is written         should keep every fact
    always      trained with an open gate                                        keeps the last N events
    random      the learned model, its bank now writing a slot by lot            facts overwrite each other
    memory off  the learned model, answering from an empty bank                  guesses

With N slots, T steps, F <= N facts and V values, a perfect reader that guesses what is lost is right with probability

    learned     1
    always      a + (1 - a) / V    with a = N / T
    random      a + (1 - a) / V    with a = mean over j < F of (1 - 1/N)^j: the j facts that come later each spare it by luck
    memory off  1 / V

These hold for a slot that is replaced when it is written, so here e = 1. A learned erase lets a model lay several values over one
another, and one trained with random slots learns gates of a quarter for the same end: both beat their closed form (see the log).
Training begins with streams that are no longer than the bank, in which nothing has to be forgotten: what cannot be found again
teaches the gate nothing (the book's log has the figures without).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rxt_lite.config import MemNetConfig
from rxt_lite.experiments.intervals import wilson
from rxt_lite.experiments.slots import Content, births, contents, effective_slots, read_entropy, survival_rows
from rxt_lite.experiments.trace import Trace, trace_of
from rxt_lite.models.memnet import MemNet, Steps
from rxt_lite.training.loop import Stage, fit
from rxt_lite.training.memory_losses import memory_loss, mutual_information, utilisation

ASK, FIRST = 7, 8  # the token that asks; the first key


@dataclass(frozen=True, kw_only=True)
class Task:
    """How long a stream is and what is in it; of token ids, keys come first, then values, then noise."""

    steps: int = 32  # T
    facts: int = 4  # F
    keys: int = 8
    values: int = 12  # V
    noises: int = 32

    def __post_init__(self):
        if not 1 <= self.facts <= min(self.steps, self.keys):
            raise ValueError(f"facts={self.facts} must be at least 1 and at most steps={self.steps} and keys={self.keys}")

    @property
    def vocab_size(self) -> int:
        return FIRST + self.keys + self.values + self.noises


@dataclass(frozen=True)
class Stream:
    """B streams: events (B, T, 2), where the facts are (B, F), and their questions (B, F, 2) with the values to answer (B, F)."""

    events: Tensor
    at: Tensor
    queries: Tensor
    values: Tensor

    def to(self, device) -> "Stream":
        return Stream(*(part.to(device) for part in (self.events, self.at, self.queries, self.values)))

    @property
    def is_fact(self) -> Tensor:
        """(B, T)."""
        return torch.zeros(self.events.shape[:2], dtype=torch.bool, device=self.at.device).scatter(1, self.at, True)


def draw(task: Task, batch_size: int, generator: torch.Generator) -> Stream:
    """B new streams."""
    def some(n: int, of: int) -> Tensor:  # n different whole numbers below `of`, in random order: (B, n)
        return torch.rand(batch_size, of, generator=generator).topk(n, dim=1).indices

    key, at = FIRST + some(task.facts, task.keys), some(task.facts, task.steps)
    value = FIRST + task.keys + torch.randint(task.values, key.shape, generator=generator)
    noise = FIRST + task.keys + task.values
    events = torch.randint(noise, noise + task.noises, (batch_size, task.steps, 2), generator=generator)
    events.scatter_(1, at.unsqueeze(2).expand(-1, -1, 2), torch.stack([key, value], dim=2))
    return Stream(events, at, torch.stack([key, torch.full_like(key, ASK)], dim=2), value)


@dataclass(frozen=True)
class Streams:
    """Endless streams, always the same at the same step; the first `short` steps bring streams of `short_steps` events."""

    task: Task
    batch_size: int
    seed: int
    short: int
    short_steps: int

    def __call__(self, step: int) -> Stream:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        task = replace(self.task, steps=self.short_steps) if step < self.short else self.task
        return draw(task, self.batch_size, generator)


# ------------------------------------------------------------------------------------------------ the model
def answer(model: MemNet, stream: Stream, state: Tensor) -> Tensor:
    """Logits (B, F, V of the task) for the values asked for, all from the same `state`."""
    B, F_ = stream.values.shape
    logits = model(stream.queries.flatten(0, 1), state.repeat_interleave(F_, dim=0))[:, -1]
    return logits.unflatten(0, (B, F_))


def forgetting_loss(model: MemNet, stream: Stream, weights: dict[str, float] | None = None) -> Tensor:
    """Mean surprise at the values asked for, in nats, plus the losses of memory_losses.py by their weights: a scalar."""
    steps = model.forward_events(stream.events)
    return F.cross_entropy(answer(model, stream, steps.state).flatten(0, 1), stream.values.flatten()) + memory_loss(steps, weights or {})


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the experiment is."""

    config: MemNetConfig
    task: Task
    steps: int
    short: int  # of these, with streams no longer than the bank
    batch_size: int
    streams: int  # held out
    seeds: tuple[int, ...]


_SMALL = MemNetConfig(vocab_size=Task().vocab_size, d_model=32, n_heads=2, n_layers=1, d_ff=64, max_len=2, n_slots=6, bank_heads=1,
                      top_k=6, d_bottleneck=16, write_policy="lru", erase="all", decay=None)
SIZES = {
    "ci": Size(config=replace(_SMALL, d_model=8, d_ff=8), task=Task(steps=8), steps=3, short=1, batch_size=4, streams=8, seeds=(0,)),
    "cpu": Size(config=_SMALL, task=Task(), steps=200, short=80, batch_size=64, streams=512, seeds=(0, 1, 2)),
    "gpu": Size(config=_SMALL, task=Task(), steps=600, short=200, batch_size=64, streams=2048, seeds=(0, 1, 2)),
}
TRAINED = {"learned": {}, "always": {"write_gate": "open"}}
ARMS = ("learned", "always", "random", "memory off")


def train(folder: Path | str, size: Size, arm: str, seed: int) -> MemNet:
    """The model of one arm and seed, trained here or loaded where an earlier call has finished it."""
    torch.manual_seed(seed)
    model = MemNet(replace(size.config, vocab_size=size.task.vocab_size, **TRAINED[arm]))
    stage = Stage(name=f"forgetting, {arm}", loss=forgetting_loss, steps=size.steps, lr=6e-3, warmup=min(20, size.steps))
    batches = Streams(size.task, size.batch_size, seed, size.short, size.config.n_slots)
    fit(model, stage, batches, seed=seed, run=Path(folder) / f"{arm}-{seed}.run", bf16=False)
    return model


def theory(arm: str, task: Task, slots: int) -> float:
    """How often a perfect reader is right, see the head of this file; with more facts than slots, `learned` keeps the last."""
    kept = {
        "learned": min(1.0, slots / task.facts),
        "always": min(1.0, slots / task.steps),
        "random": sum((1 - 1 / slots) ** j for j in range(task.facts)) / task.facts,
        "memory off": 0.0,
    }[arm]
    return kept + (1 - kept) / task.values


# ------------------------------------------------------------------------------------------------ what comes of it
def right(model: MemNet, stream: Stream, state: Tensor, task: Task) -> Tensor:
    """Was each question answered rightly (B, F)? The answer is the likeliest of the values."""
    first = FIRST + task.keys
    return answer(model, stream, state)[..., first : first + task.values].argmax(-1) + first == stream.values


def wrote(steps: Steps, row: int) -> Tensor:
    """Did this event write this slot, (T, 1, N)? A bank says so itself: more than half of the slot was rewritten. (By its cosine
    to itself before, as in slots.py, noise written over noise that looks alike would not count.)"""
    return (steps.write[row].amax(1) > 0.5).unsqueeze(1)


def lives_of(steps: Steps, traces: Sequence[Trace]) -> Iterator[tuple[int, int, Content]]:
    """(stream, event that wrote it, content) for every content of all streams."""
    for row, trace in enumerate(traces):
        yield from ((row, born, content) for born, content in zip(births(wrote(steps, row)), contents(trace, wrote(steps, row))))


def accuracy_row(model: MemNet, stream: Stream, steps: Steps, size: Size, arm: str) -> dict:
    """{"accuracy", "low", "high", "n", "theory", "gate_fact", "gate_noise"} of one arm."""
    state = model.init_state(len(stream.events)) if arm == "memory off" else steps.state
    ok, gate = right(model, stream, state, size.task), steps.gate.amax(-1)
    low, high = wilson(int(ok.sum()), ok.numel())
    return {"accuracy": ok.float().mean().item(), "low": low, "high": high, "n": ok.numel(),
            "theory": theory(arm, size.task, size.config.n_slots), "gate_fact": gate[stream.is_fact].mean().item(),
            "gate_noise": gate[~stream.is_fact].mean().item()}


def lag_rows(model: MemNet, stream: Stream, steps: Steps, task: Task) -> list[dict]:
    """Rows {"lag", "accuracy", "low", "high", "n"}: by how many events ago a fact was told, 1 the last."""
    ok, lags, rows = right(model, stream, steps.state, task), task.steps - stream.at, []
    for lag in lags.unique().tolist():
        of = ok[lags == lag]
        low, high = wilson(int(of.sum()), len(of))
        rows.append({"lag": lag, "accuracy": of.float().mean().item(), "low": low, "high": high, "n": len(of)})
    return rows


def gate_rows(stream: Stream, steps: Steps, bins: int = 20) -> list[dict]:
    """Rows {"of", "low", "high", "share", "n"}: how often a gate lies in each of `bins` equal parts of 0 to 1."""
    rows, gate = [], steps.gate.amax(-1)
    for of, chosen in (("fact", stream.is_fact), ("noise", ~stream.is_fact)):
        counts = torch.histc(gate[chosen], bins, 0.0, 1.0)
        rows += [{"of": of, "low": n / bins, "high": (n + 1) / bins, "share": (count / counts.sum()).item(), "n": int(counts.sum())}
                 for n, count in enumerate(counts)]
    return rows


def survival_table(stream: Stream, steps: Steps, traces: Sequence[Trace]) -> list[dict]:
    """Rows {"of", ...} of `survival_rows` for what facts and what noise wrote into the slots; their ages in events."""
    lives, is_fact = {"fact": [], "noise": []}, stream.is_fact
    for row, born, content in lives_of(steps, traces):
        if content.lived:
            lives["fact" if is_fact[row, born] else "noise"].append((content.lived, content.ended))
    return [{"of": of, **row} for of, some in lives.items() for row in survival_rows(some)]


def use_row(stream: Stream, steps: Steps, traces: Sequence[Trace]) -> dict:
    """How the bank is used, a mean over streams; see slots.py and memory_losses.py for the words.

    {"write_fact", "write_noise": slots that a fact and a noise event write; "overwritten": share of facts' contents that are written
    over; "read_entropy" in bits, "effective_slots", "utilisation", "mutual_information": of all reads in the stream}
    """
    written = torch.stack([wrote(steps, row)[:, 0].sum(-1) for row in range(len(traces))]).float()
    is_fact, reads = stream.is_fact[: len(traces)], steps.read[: len(traces)]
    of_facts = [content.ended for row, born, content in lives_of(steps, traces) if is_fact[row, born]]
    return {"write_fact": written[is_fact].mean().item(), "write_noise": written[~is_fact].mean().item(),
            "overwritten": sum(of_facts) / max(1, len(of_facts)),
            "read_entropy": torch.stack([read_entropy(trace).mean() for trace in traces]).mean().item(),
            "effective_slots": effective_slots(reads).mean().item(), "utilisation": utilisation(reads).item(),
            "mutual_information": mutual_information(reads).item()}


def pressure_rows(model: MemNet, size: Size, arm: str) -> list[dict]:
    """Rows {"facts", "slots", "pressure", "accuracy", "low", "high", "n", "theory"}: more facts than it was trained with, at last
    more than it has slots. pressure: facts that will be asked for over slots."""
    rows, N = [], size.config.n_slots
    for facts in range(1, min(size.task.keys, size.task.steps) + 1):
        task = replace(size.task, facts=facts)
        stream = draw(task, size.streams // 2, torch.Generator().manual_seed(10_000 + facts))
        ok = right(model, stream, model.forward_events(stream.events).state, task)
        low, high = wilson(int(ok.sum()), ok.numel())
        rows.append({"facts": facts, "slots": N, "pressure": facts / N, "accuracy": ok.float().mean().item(), "low": low, "high": high,
                     "n": ok.numel(), "theory": theory(arm, task, N)})
    return rows


def example_rows(stream: Stream, steps: Steps, row: int = 0) -> list[dict]:
    """Rows {"event", "kind", "slot", "write", "age", "read"} of one stream: a line for each event and slot, for a map."""
    kinds = ["fact" if fact else "noise" for fact in stream.is_fact[row].tolist()]
    return [{"event": t, "kind": kind, "slot": n, "write": steps.write[row, t, :, n].amax().item(),
             "age": steps.before.age[row, t, n].item(), "read": steps.read[row, t, -1, :, n].mean().item()}
            for t, kind in enumerate(kinds) for n in range(steps.write.shape[-1])]


TABLES = ("accuracy", "lag", "gates", "survival", "use", "pressure", "example")


@torch.no_grad()
def tables(model: MemNet, size: Size, arm: str, seed: int) -> Iterator[tuple[str, list[dict]]]:
    """(table, rows) of one arm, on held-out streams; with the memory off there is nothing but its accuracy."""
    torch.manual_seed(seed)  # for slots by lot
    stream = draw(size.task, size.streams, torch.Generator().manual_seed(10_000))
    steps = model.forward_events(stream.events)
    yield "accuracy", [accuracy_row(model, stream, steps, size, arm)]
    if arm == "memory off":
        return
    yield "lag", lag_rows(model, stream, steps, size.task)
    yield "gates", gate_rows(stream, steps)
    traces = [trace_of(model, stream.events, steps, row) for row in range(min(128, size.streams))]
    yield "survival", survival_table(stream, steps, traces)
    yield "use", [use_row(stream, steps, traces)]
    yield "pressure", pressure_rows(model, size, arm)
    if seed == size.seeds[0]:
        yield "example", example_rows(stream, steps)


def forgetting_rows(folder: Path | str, size: Size) -> Iterator[dict]:
    """Train the two models with every seed, test all arms; rows {"table", "arm", "seed", ...}, see the functions above."""
    for seed in size.seeds:
        models = {arm: train(folder, size, arm, seed) for arm in TRAINED}
        models["memory off"] = models["learned"]
        models["random"] = by_lot(models["learned"])
        for arm in ARMS:
            for table, rows in tables(models[arm], size, arm, seed):
                yield from ({"table": table, "arm": arm, "seed": seed, **row} for row in rows)


def by_lot(model: MemNet) -> MemNet:
    """The same weights, the bank writing random slots."""
    other = MemNet(replace(model.config, write_policy="random"))
    other.load_state_dict(model.state_dict())
    return other.eval()
