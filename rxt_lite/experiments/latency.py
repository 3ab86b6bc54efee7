"""How long a user waits at turn n, and how long the memory update takes behind the answer: four arms, as in `cost`.

    rxt_answer      read the query, say the answer, with the slots at hand          what the user waits for
    rxt_update      encode the finished event, rewrite the slots                    what happens afterwards
    reread          a stateless decoder reads the whole transcript, then the query, and says the answer
    prefix_cached   the same decoder with all keys and values of the transcript at hand, which nobody gets for nothing

With one token of answer it is the latency of the first token. Weights and tokens are random, for time does not depend
on them, and answers are given rather than found, so that all of them are equally long; every token is chosen all
the same. The transcript is read without asking for the logits of its tokens, the cheapest way to reread.

For the shape of a MemNet the first two are memnet_answer and memnet_update.

Machines are noisy. So turns are measured on a ladder (1, 2, 4, ...), all of them in every round; within a round the
arms take turns, each with its turns in a new random order after one run that is not counted; and turn n is
compared with turn 1 of the same round, a moment apart.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from rxt_lite.config import MemNetConfig, ModelConfig
from rxt_lite.models import DecoderLM, MemNet, RxT
from rxt_lite.models.base import Cache, EventModel
from rxt_lite.models.generate import sample

ARMS = ("rxt_answer", "rxt_update", "reread", "prefix_cached")
Cell = tuple[str, int]  # arm, turn


def ladder(turns: int) -> list[int]:
    """The turns that are measured: 1, 2, 4, 8, ... and the last one."""
    if turns < 1:
        raise ValueError(f"turns={turns} must be at least 1")
    return sorted({*(2**i for i in range(turns.bit_length())), turns})


def say(model: EventModel, cache: Cache, prompt: Tensor, answer: Tensor) -> Tensor:
    """Read `prompt` (1, T), then `answer` (1, Ta) but for its last token, and choose a token (1, Ta) at each step."""
    chosen = [sample(model.extend(prompt, cache)[:, -1])]
    for n in range(answer.shape[1] - 1):
        chosen.append(sample(model.extend(answer[:, n : n + 1], cache)[:, -1]))
    return torch.stack(chosen, dim=1)


class Rewound:
    """A cache that has read the whole transcript, and forgets afterwards what was said in a run: ready for the next."""

    def __init__(self, model: DecoderLM, transcript: Tensor, capacity: int):
        self.model, self.cache = model, model.open(transcript, capacity)

    def __call__(self, prompt: Tensor, answer: Tensor) -> Tensor:
        cache = self.cache
        used = cache.used
        chosen = say(self.model, cache, prompt, answer)
        cache.used = used
        return chosen


@torch.no_grad()
def works(rxt: EventModel, stateless: DecoderLM, turns: Sequence[int], query_tokens: int, answer_tokens: int,
          seed: int = 0) -> dict[Cell, Callable[[], Tensor]]:
    """What each arm does at each of `turns`, ready to be run any number of times.

    The memory of turn n has been through n - 1 events; the transcript of turn n holds the same events.
    """
    generator, V = torch.Generator().manual_seed(seed), rxt.config.vocab_size
    event = query_tokens + answer_tokens
    conversation = torch.randint(7, V, (1, max(turns) * event), generator=generator).to(rxt.device)
    cells: dict[Cell, Callable[[], Tensor]] = {}
    own = type(rxt).__name__.lower()  # rxt, or memnet
    stm = rxt.init_state(1)
    for turn, tokens in enumerate(conversation.split(event, dim=1), start=1):
        if turn in turns:
            query, answer = tokens.split([query_tokens, answer_tokens], dim=1)
            past = conversation[:, : (turn - 1) * event]
            late = 1 if turn > 1 else 0  # the end of the last answer was said but never read: not in the cache yet
            cached = Rewound(stateless, past[:, : past.shape[1] - late], event + late)
            late_query = torch.cat([past[:, past.shape[1] - late :], query], dim=1)
            cells[f"{own}_answer", turn] = lambda m=stm, q=query, a=answer: say(rxt, rxt.open(m, event), q, a)
            cells[f"{own}_update", turn] = lambda m=stm, t=tokens: rxt.remember(t, m)
            cells["reread", turn] = lambda p=past, q=query, a=answer: say(stateless, stateless.open(p, event), q, a)
            cells["prefix_cached", turn] = lambda c=cached, q=late_query, a=answer: c(q, a)
        stm = rxt.remember(tokens, stm)
    return cells


@torch.no_grad()
def measure(cells: dict[Cell, Callable[[], Tensor]], rounds: int, *, seed: int = 0,
            sync: Callable[[], None] = lambda: None) -> dict[Cell, list[float]]:
    """Milliseconds of every cell in every round; two rounds that are not counted go before."""
    dice = random.Random(seed)
    times = {cell: [] for cell in cells}
    for n in tqdm(range(-2, rounds), desc="rounds"):
        for arm in dict.fromkeys(arm for arm, _ in cells):
            turns = [turn for name, turn in cells if name == arm]
            dice.shuffle(turns)
            cells[arm, turns[0]]()  # the arm before has left its own data in the processor's caches
            for turn in turns:
                sync()
                started = time.perf_counter()
                cells[arm, turn]()
                sync()
                if n >= 0:
                    times[arm, turn].append(1e3 * (time.perf_counter() - started))
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile): half of the values lie between the outer two."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def latency_rows(times: dict[Cell, list[float]]) -> list[dict]:
    """Rows {"arm", "turn", "median_ms", "low_ms", "high_ms", "n"}: median and quartiles over n rounds."""
    rows = []
    for (arm, turn), values in times.items():
        low, middle, high = quartiles(values)
        rows.append({"arm": arm, "turn": turn, "median_ms": middle, "low_ms": low, "high_ms": high, "n": len(values)})
    return rows


def ratio_rows(times: dict[Cell, list[float]]) -> list[dict]:
    """Rows {"arm", "turn", "over_first", "low", "high", "n"}: time at `turn` over that at turn 1 of the same round.

    over_first, low, high   median and quartiles of the n paired ratios
    """
    rows = []
    for (arm, turn), values in times.items():
        low, middle, high = quartiles([value / first for value, first in zip(values, times[arm, 1])])
        rows.append({"arm": arm, "turn": turn, "over_first": middle, "low": low, "high": high, "n": len(values)})
    return rows


def measure_latency(config: ModelConfig, turns: int, *, query_tokens: int = 32, answer_tokens: int = 16, rounds: int = 41,
                    device: str = "cpu", seed: int = 0) -> dict[Cell, list[float]]:
    """Milliseconds by arm and turn for an RxT of this shape and the stateless decoder of the same shape.

    The decoder's window is made as long as the conversation; RxT's stays that of one event.
    """
    for name, value in (("turns", turns), ("query_tokens", query_tokens), ("answer_tokens", answer_tokens), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    event = query_tokens + answer_tokens
    if event > config.max_len:
        raise ValueError(f"an event of {event} tokens does not fit the window of max_len={config.max_len}; make it shorter")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not there; this PyTorch sees the CPU only")
    torch.manual_seed(seed)
    rxt = (MemNet if isinstance(config, MemNetConfig) else RxT)(config).to(device).eval()
    stateless = DecoderLM(replace(config, max_len=turns * event)).to(device).eval()
    sync = torch.cuda.synchronize if device != "cpu" else lambda: None
    return measure(works(rxt, stateless, ladder(turns), query_tokens, answer_tokens, seed), rounds, seed=seed, sync=sync)
