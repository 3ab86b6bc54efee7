"""Recall of planted facts, and the controls without which it means nothing.

A dialogue is run freely: the model's own answers go into its memory (and into the transcript of the
full-history decoder). At each event an *arm* decides which memory the answer is read from:

    memory_on         its own
    memory_reset      an empty one: what can be guessed
    memory_swapped    that of another dialogue: is it *this* conversation that is remembered?
    last_event_only   one that has seen nothing but the event before: does memory reach further?
    full_history      a decoder that rereads the whole transcript: the ceiling
    chance            1 / options

The memory that is carried on is always the model's own; only the reading is controlled.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rxt_lite.config import PAD
from rxt_lite.data.dialogues import Dialogue, Probe, classify, make_dialogues
from rxt_lite.data.tokenizer import decode, encode_query
from rxt_lite.experiments.intervals import wilson
from rxt_lite.models.base import EventModel, State, join
from rxt_lite.models.generate import generate

# What recall may be counted against: turns since the value was last seen, the turn in which the fact was last written
# (0 is the first), how many different facts had been told when the question came, and of how many others the same.
BY: dict[str, Callable[[Probe], int]] = {"seen": lambda p: p.seen, "written": lambda p: p.turn - p.distance,
                                         "stored": lambda p: p.stored, "rivals": lambda p: p.rivals}

Arm = Callable[[EventModel, State, Tensor | None], State]  # (model, own state, last event) -> the state to read


def memory_on(model: EventModel, state: State, last: Tensor | None) -> State:
    return state


def memory_reset(model: EventModel, state: State, last: Tensor | None) -> State:
    return model.init_state(model.batch_size(state))


def memory_swapped(model: EventModel, state: State, last: Tensor | None) -> State:
    return model.select(state, torch.arange(model.batch_size(state), device=model.device).roll(1))


def last_event_only(model: EventModel, state: State, last: Tensor | None) -> State:
    empty = memory_reset(model, state, last)
    return empty if last is None else model.remember(last, empty)


ARMS: tuple[Arm, ...] = (memory_on, memory_reset, memory_swapped, last_event_only)


TESTS = {  # name: world, split
    "base": ("base", "test_iid"),
    "hard": ("hard", "test_iid"),
    "changed": ("base", "test_overwrite"),
    "combinations": ("base", "test_combo"),
    "paraphrase": ("base", "test_paraphrase"),
    "two hops": ("base", "test_two_hop"),
    "far": ("far", "test_distance"),
}


def test_sets(many: int, seed: int) -> dict[str, list[Dialogue]]:
    """{name: `many` held-out dialogues} for each of TESTS; of "far" at most 160, five at each distance."""
    return {name: make_dialogues(world, min(many, 160) if name == "far" else many, split=split, seed=seed)
            for name, (world, split) in TESTS.items()}


def ask(model: EventModel, queries: Sequence[str], state: State, tokenizer, max_new_tokens: int = 12) -> tuple[Tensor, Tensor]:
    """Ask each conversation of `state` its query, greedy: prompts (B, T) and answers (B, Ta), right-padded."""
    prompts = [torch.tensor(encode_query(tokenizer, query)) for query in queries]
    query = pad_sequence(prompts, batch_first=True, padding_value=PAD).to(model.device)
    return query, generate(model, query, state, max_new_tokens)


@torch.no_grad()
def run_freely(model: EventModel, dialogues: Sequence[Dialogue], tokenizer, arm: Arm = memory_on,
               max_new_tokens: int = 12) -> list[list[str]]:
    """The model's own answer to every query of every dialogue, greedy: a list of answers per dialogue.

    All dialogues run side by side and must have the same number of events.
    """
    lengths = {len(d.events) for d in dialogues}
    if len(lengths) != 1:
        raise ValueError(f"dialogues of {sorted(lengths)} events cannot run side by side; group them by length")
    state, last, answers = model.init_state(len(dialogues)), None, []
    for n in range(lengths.pop()):
        query, answer = ask(model, [d.events[n].query for d in dialogues], arm(model, state, last), tokenizer, max_new_tokens)
        answers.append([decode(tokenizer, row) for row in answer.tolist()])
        last = join(query, answer)
        state = model.remember(last, state)
    return [list(of_dialogue) for of_dialogue in zip(*answers)]


def recall_rows(model: EventModel, full_history: EventModel | None, dialogues: Sequence[Dialogue], tokenizer, *,
                seed: int, by: str = "seen", batch_size: int = 256, arms: Sequence[Arm] = ARMS) -> list[dict]:
    """Rows {"arm", "seen", "recall", "low", "high", "n", "seed"}: exact-match recall by distance, or by another of BY.

    seen       turns since the value was last visible in the conversation
    low, high  95 % Wilson interval over the n questions
    seed       the training seed of `model`
    """
    if by not in BY:
        raise ValueError(f"by={by!r} is not known; choose one of {', '.join(BY)}")
    return count(marks_of(model, full_history, dialogues, tokenizer, batch_size, arms), dialogues, seed=seed, by=by)


def overall(rows: list[dict], arm: str) -> tuple[int, int]:
    """(right answers, questions) of one arm over all distances."""
    mine = [row for row in rows if row["arm"] == arm]
    return round(sum(row["recall"] * row["n"] for row in mine)), sum(row["n"] for row in mine)


def with_interval(right: int, n: int) -> dict[str, float]:
    """{"recall", "low", "high", "n"}: the share and its 95 % Wilson interval."""
    low, high = wilson(right, n)
    return {"recall": right / n, "low": low, "high": high, "n": n}


def with_controls(model: EventModel, dialogues: Sequence[Dialogue], tokenizer, seed: int) -> dict[str, float]:
    """{"recall", "low", "high", "n", "alone", "rival", "memory_reset", "memory_swapped", "last_event_only"}: all distances together.

    alone, rival   recall where the attribute was told of nobody else before the question, and where it was
    """
    rows = recall_rows(model, None, dialogues, tokenizer, seed=seed, by="rivals")
    apart = {name: overall([row for row in rows if (row["rivals"] > 0) == (name == "rival")], "memory_on") for name in ("alone", "rival")}
    right, n = overall(rows, "memory_on")
    return {**with_interval(right, n), **{name: got / asked if asked else None for name, (got, asked) in apart.items()},
            **{arm.__name__: overall(rows, arm.__name__)[0] / n for arm in ARMS[1:]}}


def marks_of(model: EventModel, full_history: EventModel | None, dialogues: Sequence[Dialogue], tokenizer,
             batch_size: int = 256, arms: Sequence[Arm] = ARMS) -> dict[str, list[tuple[Probe, str]]]:
    """Each question, and how it was answered (see `classify`), under every arm."""
    runs = [(arm.__name__, model, arm) for arm in arms]
    if full_history is not None:
        runs.append(("full_history", full_history, memory_on))
    marks = {name: [] for name, _, _ in runs}
    for name, which, arm in runs:
        for first in range(0, len(dialogues), batch_size):
            some = dialogues[first : first + batch_size]
            for dialogue, answers in zip(some, run_freely(which, some, tokenizer, arm)):
                marks[name] += [(probe, classify(probe, answers[probe.turn])) for probe in dialogue.probes]
    return marks


def count(marks: dict[str, list[tuple[Probe, str]]], dialogues: Sequence[Dialogue], *, seed: int, by: str) -> list[dict]:
    """The rows of `recall_rows` from the marks of one run, which may be counted against each of BY."""
    rows = []
    for name, of_arm in marks.items():
        right, n = defaultdict(int), defaultdict(int)
        for probe, verdict in of_arm:
            if probe.kind == "recall":
                right[BY[by](probe)] += verdict == "right"
                n[BY[by](probe)] += 1
        for at in sorted(n):
            low, high = wilson(right[at], n[at])
            rows.append({"arm": name, by: at, "recall": right[at] / n[at], "low": low, "high": high, "n": n[at], "seed": seed})
    return rows + chance_rows(dialogues, seed, by)


VERDICTS = ("right", "stale", "refused", "other")
QUESTIONS: dict[str, Callable[[Probe], bool]] = {
    "told": lambda p: p.writes == 1,  # once
    "changed": lambda p: p.writes > 1,
    "unknown": lambda p: p.writes == 0,  # never told: right is a refusal
}


def verdict_rows(marks: dict[str, list[tuple[Probe, str]]], *, seed: int) -> list[dict]:
    """Rows {"arm", "question", "verdict", "share", "low", "high", "n", "seed"}: how each kind of question was answered."""
    rows = []
    for arm, of_arm in marks.items():
        for question, asks in QUESTIONS.items():
            given = [verdict for probe, verdict in of_arm if asks(probe)]
            for verdict in VERDICTS if given else ():
                low, high = wilson(given.count(verdict), len(given))
                rows.append({"arm": arm, "question": question, "verdict": verdict, "share": given.count(verdict) / len(given),
                             "low": low, "high": high, "n": len(given), "seed": seed})
    return rows


def chance_rows(dialogues: Sequence[Dialogue], seed: int, by: str = "seen") -> list[dict]:
    """What guessing among the possible values would score: known exactly, so without an interval."""
    shares = defaultdict(list)
    for dialogue in dialogues:
        for probe in dialogue.probes:
            if probe.kind == "recall":
                shares[BY[by](probe)].append(1 / probe.options)
    means = {at: sum(s) / len(s) for at, s in sorted(shares.items())}
    return [{"arm": "chance", by: at, "recall": m, "low": m, "high": m, "n": len(shares[at]), "seed": seed} for at, m in means.items()]
