"""What each slot holds, how long it holds it, and what can be read off it.

The words, for one slot in a conversation of N events:

    written         an event writes a slot when its cosine to itself before falls below 0.9 (it turns by more than 26
                    degrees). Gates differ from model to model; this can be said of all of them
    write frequency share of the events that write the slot
    content         what an event wrote; the slot's first filling, which no event wrote, is none
    lifetime        of a content: events from the one that wrote it to the one that writes the slot again. Of the content
                    still there at the end only so much is known, that it lived longer than it was seen: it is censored
    reuse           of a content: how many of the events it lives to see read its slot with more than a fair share of
                    their attention, 1 / S (the event that overwrites it reads first, and counts)
    read entropy    of a token: - sum over slots of r log2 r, r its read weights: 0 bits from one slot, log2 S from all alike
    survival        S(k), the share whose lifetime is longer than k, or for facts: that are still known at age k;
                    estimated by Kaplan and Meier (1958), who count the censored for as long as they were seen

A fact is asked on the side at every age k, right after event told + k - 1, where a question in the conversation would
stand at distance k; a copy of the memory answers, the memory itself goes on as if nobody had asked. It is censored when
the dialogue ends, when it is overwritten, and when the dialogue itself asks for it, for then the answer tells it anew.
There are two ways to say when it died, and a model that is shy of answering makes them differ:

    answered        at the first wrong answer
    held            at the first of the wrong answers that no right one follows: what is answered later was there all along,
                    for a memory cannot get back by itself what it has lost

A worked example, S = 2 slots of width 2 in one layer, N = 4 events of one token. Events 0 and 2 turn slot 0 by 90
degrees, nobody touches slot 1:

    >>> a, b = [1.0, 0.0], [0.0, 1.0]
    >>> slots = torch.tensor([[[a, a]], [[b, a]], [[b, a]], [[a, a]], [[a, a]]])       # (N + 1, L, S, D)
    >>> read = [torch.tensor([[[r, 1 - r]]]) for r in (0.5, 0.8, 0.3, 0.9)]            # N x (L, T, S)
    >>> write = [torch.ones(1, 2, 1)] * 4
    >>> trace = Trace([torch.tensor([7])] * 4, slots, None, write, read)
    >>> written(trace)[:, 0].tolist()
    [[True, False], [False, False], [True, False], [False, False]]

    Slot 0 is written by 2 of 4 events. Its first content lives 2 events, and of those event 1 reads it (0.8 > 1/2) and
    event 2 does not (0.3); the second has been seen for 1 event, which reads it (0.9), when the dialogue ends.

    >>> contents(trace)
    [Content(layer=0, slot=0, lived=2, ended=True, reuse=1), Content(layer=0, slot=0, lived=1, ended=False, reuse=1)]
    >>> [round(bits, 3) for bits in read_entropy(trace)[:, 0].tolist()]                # of events 0 to 3
    [1.0, 0.722, 0.881, 0.469]
    >>> [(row["age"], row["alive"], row["at_risk"]) for row in survival_rows([(c.lived, c.ended) for c in contents(trace)])]
    [(1, 1.0, 2), (2, 0.0, 1)]
    >>> right = [False, True, True, False]                                             # at ages 1 to 4, then the dialogue ended
    >>> answered(right), held(right), held(right[:3])                                  # (age, did it die then?)
    ((1, True), (4, True), (3, False))
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rxt_lite.data.dialogues import Dialogue, Probe, World, answer_is_right, make_dialogues
from rxt_lite.data.tokenizer import decode
from rxt_lite.data.world import ATTRIBUTES, facts_told
from rxt_lite.experiments.probe import probe_rows, snapshots
from rxt_lite.experiments.recall import Arm, ask, memory_on, memory_reset
from rxt_lite.experiments.trace import Trace, own_events, record
from rxt_lite.models import RxT
from rxt_lite.models.base import join

WRITTEN = 0.9  # cosine of a slot to itself before


# ------------------------------------------------------------------------------------------------ how slots are used
@dataclass(frozen=True)
class Content:
    """What an event wrote into a slot: how many events it `lived`, whether it then `ended`, how many reused it."""

    layer: int
    slot: int
    lived: int
    ended: bool
    reuse: int


def written(trace: Trace) -> Tensor:
    """(N, L, S): did this event write this slot?"""
    return trace.cosine < WRITTEN


def entropy(shares: Tensor) -> Tensor:
    """- sum of r log2 r over the last axis, in bits: (..., S) -> (...)."""
    return -(shares * shares.clamp(min=1e-30).log2()).sum(-1)


def read_entropy(trace: Trace) -> Tensor:
    """(N, L): bits, the mean over the tokens of each event."""
    return torch.stack([entropy(r).mean(-1) for r in trace.read])


def contents(trace: Trace, wrote: Tensor | None = None) -> list[Content]:
    """Every content of a conversation, in the order of layers, slots and events; `wrote` (N, L, S) if not by cosine (see `written`)."""
    wrote = written(trace) if wrote is None else wrote
    N, L, S = wrote.shape
    fair = torch.stack([r.mean(1) > 1 / S for r in trace.read])  # (N, L, S)
    found = []
    for l in range(L):
        for s in range(S):
            starts = wrote[:, l, s].nonzero().flatten().tolist()
            for start, end in zip(starts, [*starts[1:], None]):
                last = N - 1 if end is None else end  # the last event that reads this content
                found.append(Content(l, s, last - start, end is not None, int(fair[start + 1 : last + 1, l, s].sum())))
    return found


def births(wrote: Tensor) -> list[int]:
    """The event that wrote each of the `contents`, in their order: from wrote (N, L, S)."""
    return wrote.permute(1, 2, 0).nonzero()[:, 2].tolist()


def effective_slots(shares: Tensor) -> Tensor:
    """2 to the read entropy: as many slots, read alike, would be as uncertain: (..., S) -> (...)."""
    return 2 ** entropy(shares)


def trace_rows(trace: Trace, tokenizer: Tokenizer) -> list[dict]:
    """Rows {"event", "layer", "slot", "gate", "norm", "change", "cosine", "written", "tokens", "write", "read"}: a line a slot and event.

    tokens  of the event, as text
    write   how the slot spread its attention over them when it was rewritten
    read    how much of its attention each of them gave to the slot, before that
    """
    rows, (N, L, S) = [], trace.norm.shape
    for n in range(N):
        tokens = [tokenizer.decode([t], skip_special_tokens=False).strip() for t in trace.tokens[n].tolist()]
        for l in range(L):
            for s in range(S):
                row = {"event": n, "layer": l, "slot": s, "gate": None if trace.gate is None else trace.gate[n, l, s].item()}
                row |= {name: getattr(trace, name)[n, l, s].item() for name in ("norm", "change", "cosine")}
                row["written"] = row["cosine"] < WRITTEN
                rows.append({**row, "tokens": tokens, "write": trace.write[n][l, s].tolist(), "read": trace.read[n][l, :, s].tolist()})
    return rows


def use_rows(traces: Sequence[Trace]) -> list[dict]:
    """Rows {"layer", "slot", "write_frequency", "lifetime", "reuse", "read", "read_entropy", "gate", "contents"}.

    lifetime      events that its contents lived, all added up, over how many of them were overwritten: the mean lifetime if
                  every event is as likely to overwrite as the next. None where nothing was overwritten
    reuse         mean over its contents but for those of a last event, which nothing could read; None where there are none
    read          mean share of the reading that the slot gets; 1 / S is fair
    read_entropy  of the layer, in bits, mean over all tokens; the same for all its slots
    gate          mean over all events
    contents      how many there were in all conversations
    """
    wrote = torch.cat([written(t) for t in traces]).float().mean(0)  # (L, S)
    read = torch.cat([r for t in traces for r in t.read], dim=1)  # (L, all tokens, S)
    of_layer = entropy(read).mean(-1)  # (L)
    gate = None if traces[0].gate is None else torch.cat([t.gate for t in traces]).mean(0)
    everything, rows = [c for t in traces for c in contents(t)], []
    for l in range(wrote.shape[0]):
        for s in range(wrote.shape[1]):
            of = [c for c in everything if (c.layer, c.slot) == (l, s)]
            ended, lived = sum(c.ended for c in of), [c for c in of if c.lived]
            rows.append({"layer": l, "slot": s, "write_frequency": wrote[l, s].item(),
                         "lifetime": sum(c.lived for c in of) / ended if ended else None,
                         "reuse": sum(c.reuse for c in lived) / len(lived) if lived else None, "read": read[l, :, s].mean().item(),
                         "read_entropy": of_layer[l].item(), "gate": None if gate is None else gate[l, s].item(), "contents": len(of)})
    return rows


def event_rows(traces: Sequence[Trace], dialogues: Sequence[Dialogue]) -> list[dict]:
    """Rows {"event", "layer", "gate", "change", "cosine", "written", "n"}: what an event that tells, asks or chats does to a memory.

    gate, change, cosine   mean over all slots and n events; written: how many slots an event writes, mean
    """
    kinds = ["tells" if facts_told(e.query) else "asks" if n in {p.turn for p in d.probes} else "chats"
             for d in dialogues for n, e in enumerate(d.events)]
    names = [name for name in ("gate", "change", "cosine") if getattr(traces[0], name) is not None]
    named = {name: torch.cat([getattr(t, name) for t in traces]) for name in names}  # (all events, L, S)
    wrote, rows = torch.cat([written(t) for t in traces]), []
    for kind in sorted(set(kinds)):
        chosen = torch.tensor([k == kind for k in kinds])
        for l in range(wrote.shape[1]):
            means = {name: values[chosen, l].mean().item() for name, values in named.items()}
            rows.append({"event": kind, "layer": l, "gate": None, **means, "written": wrote[chosen, l].sum(-1).float().mean().item(),
                         "n": int(chosen.sum())})
    return rows


# ------------------------------------------------------------------------------------------------ survival
def survival_rows(lives: Sequence[tuple[int, bool]]) -> list[dict]:
    """Kaplan-Meier rows {"age", "alive", "low", "high", "at_risk", "ended", "censored"} of (age, did it end then?).

    alive      S(age): the share that lives on past this age
    low, high  95 % interval on the log-log scale (lifelines' default; Kalbfleisch and Prentice 1980). It takes lives as
               independent, which those of one dialogue are not quite, and has no width while nothing has ended
    at_risk    how many were still seen, and alive, when this age came
    """
    if not lives:
        return []
    from lifelines import KaplanMeierFitter

    ages, ended = zip(*lives)
    fit = KaplanMeierFitter().fit(ages, event_observed=ended)
    rows = []
    for age in sorted(set(ages)):
        alive = float(fit.survival_function_.loc[age].iloc[0])
        low, high = (float(bound) for bound in fit.confidence_interval_survival_function_.loc[age])
        of = fit.event_table.loc[age]
        rows.append({"age": age, "alive": alive, "low": alive if math.isnan(low) else low, "high": alive if math.isnan(high) else high,
                     "at_risk": int(of["at_risk"]), "ended": int(of["observed"]), "censored": int(of["censored"])})
    return rows


def answered(right: Sequence[bool]) -> tuple[int, bool]:
    """(age, did it die then?) of a fact asked at ages 1, 2, ...: its first wrong answer is its death."""
    return (right.index(False) + 1, True) if False in right else (len(right), False)


def held(right: Sequence[bool]) -> tuple[int, bool]:
    """The same, where a wrong answer does not count if a right one follows."""
    last = max((age for age, ok in enumerate(right, start=1) if ok), default=0)
    return (last, False) if last == len(right) else (last + 1, True)


@torch.no_grad()
def ask_facts(model: RxT, dialogues: Sequence[Dialogue], tokenizer: Tokenizer, arm: Arm = memory_on,
              max_new_tokens: int = 12) -> list[list[bool]]:
    """Was it answered rightly at ages 1, 2, ...? A list for every fact told, in conversations with the model's own answers.

    The memory that is carried on is the model's own; `arm` (see `recall`) decides from which one the facts are asked.
    All dialogues run side by side and must have the same number of events.
    """
    state, finished = model.init_state(len(dialogues)), []
    alive: dict[tuple[int, str, str], tuple[str, list[bool]]] = {}  # (dialogue, attribute, entity) -> (value, right so far)
    for n in range(len(dialogues[0].events)):
        last = join(*ask(model, [d.events[n].query for d in dialogues], state, tokenizer, max_new_tokens))
        state = model.remember(last, state)
        for b, dialogue in enumerate(dialogues):
            told = {(b, attribute, entity): (value, []) for attribute, entity, value in facts_told(dialogue.events[n].query)}
            asked = [(b, probe.attribute, probe.entity) for probe in dialogue.probes if probe.turn == n]
            finished += [alive.pop(key)[1] for key in (*told, *asked) if key in alive]
            alive |= told
        if not alive:
            continue
        rows = torch.tensor([b for b, _, _ in alive], device=model.device)
        queries = [ATTRIBUTES[attribute].ask[0].format(e=entity) for _, attribute, entity in alive]
        _, said = ask(model, queries, model.select(arm(model, state, last), rows), tokenizer, max_new_tokens)
        for ((_, attribute, entity), (value, right)), answer in zip(alive.items(), said.tolist()):
            probe = Probe(turn=n, kind="recall", attribute=attribute, entity=entity, value=value)
            right.append(answer_is_right(probe, decode(tokenizer, answer)))
    return finished + [right for _, right in alive.values()]


def fact_rows(model: RxT, dialogues: Sequence[Dialogue], tokenizer: Tokenizer) -> list[dict]:
    """Rows {"of", "arm", ...} of `survival_rows` for the facts told: of "fact answered" and "fact held", with memory on and reset."""
    rows = []
    for arm in (memory_on, memory_reset):
        asked = ask_facts(model, dialogues, tokenizer, arm)
        for death in (answered, held):
            curve = survival_rows([death(right) for right in asked])
            rows += [{"of": f"fact {death.__name__}", "arm": arm.__name__, **row} for row in curve]
    return rows


def content_rows(traces: Sequence[Trace]) -> list[dict]:
    """Rows {"of", "arm", ...} of `survival_rows` for what events wrote into the slots: a curve for each layer."""
    of = [content for trace in traces for content in contents(trace) if content.lived]  # the last event's have not lived yet
    return [{"of": f"content of layer {layer}", "arm": "memory_on", **row} for layer in sorted({c.layer for c in of})
            for row in survival_rows([(c.lived, c.ended) for c in of if c.layer == layer])]


# ------------------------------------------------------------------------------------------------ all of it
TABLES = ("trace", "events", "use", "survival", "probe")


def slot_tables(model: RxT, tokenizer: Tokenizer, world: World | str = "base", *, dialogues: int = 48, probed: int = 1024,
                data_seed: int = 1000, only: Sequence[str] = TABLES) -> Iterator[tuple[str, list[dict]]]:
    """(table, rows) for the tables asked for, from held-out conversations of the small world.

    trace     one conversation, slot by slot and event by event: see trace_rows
    events    what telling, asking and chatting does to the memory: see event_rows
    use       how often a slot is written and read: see use_rows
    survival  how long facts and contents live: see fact_rows, content_rows
    probe     what a linear map reads off the slots: learnt on `probed` dialogues, scored on half as many others; see probe_rows
    """
    if unknown := [name for name in only if name not in TABLES]:
        raise ValueError(f"table {unknown[0]!r} is not known; choose from {', '.join(TABLES)}")
    for name, value in (("dialogues", dialogues), ("probed", probed // 2)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    draw = lambda split, n: make_dialogues(world, n, split=split, seed=data_seed)  # noqa: E731
    some = draw("test_iid", dialogues)
    watch = cache(lambda dialogue: record(model, own_events(model, dialogue, tokenizer)))
    tables = {
        "trace": lambda: trace_rows(watch(some[0]), tokenizer),
        "events": lambda: event_rows([*map(watch, some)], some),
        "use": lambda: use_rows([*map(watch, some)]),
        "survival": lambda: fact_rows(model, some, tokenizer) + content_rows([*map(watch, some)]),
        "probe": lambda: probe_rows(*(snapshots(model, d, tokenizer) for d in (draw("valid", probed), draw("test_iid", probed // 2)))),
    }
    for name in TABLES:
        if name in only:
            yield name, tables[name]()
