"""The embedded small world: endless little dialogues whose every answer is known exactly.

    0  I gave the hat to Ben.         I see.
    1  Lily has a parrot.             Thank you.
    2  Who has the hat?               Ben has the hat.          distance 2
    3  Now Lily has a turtle.         I see.                    what was told in turn 1 is stale
    4  What food does Lily like?      I do not know.            never told
    5  Which animal does Lily keep?   Lily has a turtle.        distance 2, stale: parrot

A turn is one event: it tells facts, asks for one, asks for one that was never told, or chats. Facts stand in
the *query*, so the truth stays exact when a model's own answers go into its memory. Values are drawn uniformly
and independently, so that without memory nobody does better than 1 / options. The questions are planned first
(when told, when asked), because filling turns at random makes nearly all distances short. A question about what was
never told is a planned one whose telling is left out, so that no turn gives away whether there is an answer.
"""
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from rxt_lite.data.world import ACKNOWLEDGEMENTS, ATTRIBUTES, CHATTER, LEVELS, OBJECTS, PEOPLE, REFUSAL

SPLITS = ("train", "valid", "test_iid", "test_combo", "test_distance", "test_overwrite", "test_long", "test_paraphrase",
          "test_two_hop")

Key = tuple[str, str]                                                    # (attribute, entity)
OF_OBJECTS = tuple(name for name, kind in ATTRIBUTES.items() if kind.entities is OBJECTS)
OF_PEOPLE = tuple(name for name, kind in ATTRIBUTES.items() if kind.entities is PEOPLE)


# ---------------------------------------------------------------------------------------------- what a dialogue is
@dataclass(frozen=True)
class Event:
    """One turn: a query and its answer."""

    query: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question whose right answer is known, and what makes it hard.

    turn       the event that asks, counted from 0
    kind       "recall": `value` was told before
               "unknown": it never was; the right answer is a refusal, and value is ""
               "next": a story goes on; many answers are right, so value is "" (see stories.py)
    attribute  what is asked for, of which entity:  colour, hat
    value      what the answer has to hold:         red
    distance   turns since the fact was last written (0 for "unknown" and "next")
    seen       turns since the value was last visible in any turn, at most `distance` (0 like `distance`)
    writes     how often the fact was written before the question
    stale      the values it had before, oldest first
    options    how many values could stand there; 1 / options is chance (0: not countable)
    stored     how many different facts were told before the question
    rivals     of how many others the same attribute was told before it: 1 where Ivy's fish could be taken for Ben's pony
    """

    turn: int
    kind: str
    attribute: str
    entity: str
    value: str = ""
    distance: int = 0
    seen: int = 0
    writes: int = 0
    stale: tuple[str, ...] = ()
    options: int = 0
    stored: int = 0
    rivals: int = 0


@dataclass(frozen=True)
class Dialogue:
    """Events in order, and the probes among them in the order of their turns."""

    events: tuple[Event, ...]
    probes: tuple[Probe, ...] = ()

    def __post_init__(self):
        if not self.events:
            raise ValueError("a dialogue needs at least one event, got none")


# The small dialogue that goes through the whole book.
EXAMPLE = Dialogue(
    (
        Event("You can find the drum in the tower.", "I see."),
        Event("The name of Otto's pet is Spot.", "Thank you."),
        Event("The best food for Otto is noodles.", "Thank you."),
        Event("Sam has the lamp.", "Good to know."),
        Event("Otto's pet is called Momo now.", "Thank you."),
        Event("Thank you for your help.", "You are welcome."),
        Event("What is Otto's pet called?", "Otto's pet is called Momo."),
        Event("Where can I find the drum?", "The drum is in the tower."),
        Event("Do you know who has the lamp?", "Sam has the lamp."),
    ),
    (
        Probe(turn=6, kind="recall", attribute="pet name", entity="Otto", value="Momo", distance=2, seen=2, writes=2,
              stale=("Spot",), options=11, stored=4),
        Probe(turn=7, kind="recall", attribute="place", entity="drum", value="tower", distance=7, seen=7, writes=1, options=11, stored=4),
        Probe(turn=8, kind="recall", attribute="holder", entity="lamp", value="Sam", distance=5, seen=5, writes=1, options=22, stored=4),
    ),
)


# ---------------------------------------------------------------------------------------------- the worlds
@dataclass(frozen=True, kw_only=True)
class World:
    """The knobs of the small world.

    turns           events in a dialogue
    people, objects how many of each the dialogue speaks about
    cast            how many of the names, and of the things, it may draw them from: the first so many of each list
    templates       ways to say each thing, 1 to 3
    probes          planned questions, each about another fact
    overwrites      share of the planned facts that change once before they are asked
    unknowns        share of the questions whose fact is never told, the same in every turn
    chatter         share of the turns left over that chat; the others tell facts that nobody asks for
    facts_per_tell  facts told together in one turn
    ack_repeats     the answer to a telling repeats the facts, so that they are seen twice
    distance        turns from telling to asking; None draws it uniformly from all that fit
    gap             turns about others in the middle: what is told before them is asked after them (and stays true)
    paraphrase      every question is asked in the words that are kept for test_paraphrase
    """

    turns: int = 9
    people: int = 2
    objects: int = 2
    cast: int = len(PEOPLE)
    templates: int = 3
    probes: int = 3
    overwrites: float = 0.15
    unknowns: float = 0.12
    chatter: float = 0.6
    facts_per_tell: int = 1
    ack_repeats: bool = False
    distance: int | None = None
    gap: int = 0
    paraphrase: bool = False

    def __post_init__(self):
        _check("turns", self.turns, 2, 1000)
        _check("people", self.people, 0, len(PEOPLE))
        _check("objects", self.objects, 0, len(OBJECTS))
        _check("cast", self.cast, max(1, self.people, self.objects), len(PEOPLE))
        _check("templates", self.templates, 1, LEVELS)
        _check("facts_per_tell", self.facts_per_tell, 1, 4)
        for name in ("overwrites", "unknowns", "chatter"):
            _check(name, getattr(self, name), 0, 1)
        if self.gap:
            _check("gap", self.gap, 2, self.turns - 2)
            if min(self.people, self.objects) < 2:
                raise ValueError(f"gap={self.gap} needs at least 2 people and 2 objects, because half of them are kept "
                                 f"for the gap; got {self.people} and {self.objects}")
        turns = self.gap or self.turns
        always = self.overwrites == 1                                    # tell, change and ask: three turns each
        _check("probes", self.probes, 1, turns // (3 if always else 2))
        if self.distance is not None:
            _check("distance", self.distance, 1, turns - (2 if always else 1))
        facts = 3 * (self.people + self.objects)
        if self.probes + self.n_far > (facts // 2 if self.gap else facts):
            raise ValueError(f"probes={self.probes} are too many: {self.people} people and {self.objects} objects have "
                             f"{facts} facts")

    @property
    def n_far(self) -> int:
        """How many facts are told before the gap and asked after it."""
        return (self.turns - self.gap) // 2 if self.gap else 0


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value} does not fit, it must lie between {low} and {high}")


BASE = World()
PRESETS = {
    "easy": World(turns=5, people=1, objects=1, templates=1, probes=2, overwrites=0),
    "base": BASE,
    "long": World(turns=17, people=3, objects=3, probes=5),
    "far": World(turns=33, people=3, objects=3, probes=6),
    "overwrite": replace(BASE, probes=2, overwrites=0.7),
    "unsure": replace(BASE, unknowns=0.5),
    "things": World(people=1, objects=3, probes=4, unknowns=0.25),
    "long_range": World(turns=12, probes=2, gap=8),
    "hard": World(people=4, objects=4, probes=4, overwrites=0, unknowns=0, chatter=0),  # 5 facts or more, no turn to spare
}


@cache
def _for_split(world: World, split: str, step: int) -> World:
    """The world with the knobs that a split turns; `step` runs through the distances of test_distance."""
    if split == "test_distance":
        return replace(world, probes=1, overwrites=0, unknowns=0, gap=0, distance=step + 1)
    if split == "test_overwrite":
        turns = max(world.turns, 3)
        return replace(world, turns=turns, probes=max(1, min(world.probes, turns // 4)), overwrites=1, gap=0,
                       distance=world.distance and min(world.distance, turns - 2))
    if split == "test_paraphrase":
        return replace(world, paraphrase=True)
    if split == "test_two_hop":
        return replace(world, turns=max(world.turns, 3), people=max(world.people, 1), objects=max(world.objects, 1), probes=1,
                       overwrites=0, unknowns=0, gap=0, distance=None)
    if split == "test_long":
        return replace(world, turns=2 * world.turns, gap=world.gap and world.gap + world.turns)
    return world


def held_out(attribute: str, entity: str, value: str) -> bool:
    """Is this triple kept for test_combo? About one in ten is, and no other split ever tells it.

    A diagonal through the table of entities and values: each entity loses equally many values, and each value
    equally many entities (to within one), so that chance stays 1 / options.
    """
    kind = ATTRIBUTES[attribute]
    lost = max(1, len(kind.values) // 10)
    return (kind.values.index(value) - lost * kind.entities.index(entity)) % len(kind.values) < lost


@cache
def _values(attribute: str, entity: str, kept_for_test: bool) -> tuple[str, ...]:
    return tuple(v for v in ATTRIBUTES[attribute].values if held_out(attribute, entity, v) is kept_for_test)


# ---------------------------------------------------------------------------------------------- drawing one
def make_dialogue(world: World | str, *, split: str = "train", seed: int = 0, index: int = 0) -> Dialogue:
    """Row `index` of a split, made alone: nothing but world, split, seed and index decides its text.

    train, valid, test_iid  the same kind of dialogue from different draws
    test_combo              every asked fact is one of the triples that no other split tells (see `held_out`)
    test_distance           one question, told exactly 1 + index mod (turns - 1) turns before, its value seen only then
    test_overwrite          every asked fact has changed before
    test_long               twice the turns with as many questions (a gap grows by the turns added)
    test_paraphrase         every question is asked in words that no other split asks it in
    test_two_hop            one question, about a person who is named only by the thing they were told to have

    Raises ValueError for an unknown preset or split.
    """
    world = world_named(world)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    world = _for_split(world, split, index % (world.turns - 1) if split == "test_distance" else 0)
    dice = Dice(f"{seed}/{split}/{index}")
    plans = _plan(world, dice)
    near, far = _keys(world, dice)
    if split == "test_two_hop":                                          # what is asked is about people: it stands last
        near.sort(key=lambda key: key[0] in OF_PEOPLE)
    for plan in plans:
        plan.key = (far if plan.far else near).pop()
        if dice.random() < world.unknowns:
            plan.writes = []
        plan.values = _values_of(plan, dice, split, near)
    acts = [_Turn() for _ in range(world.turns)]
    for plan in plans:
        for n, (turn, value) in enumerate(zip(plan.writes, plan.values)):
            acts[turn].tells.append((*plan.key, value, n > 0))
        acts[plan.ask].asks = plan
    if split == "test_two_hop":
        _tell_who_has_what(dice, acts, plans[0], near)
    _fill(world, dice, acts, plans, near, far)
    events = tuple(_speak(world, dice, turn) for turn in acts)
    return Dialogue(events, _probes(acts, events, split))


def make_dialogues(world: World | str, n: int, *, split: str = "train", seed: int = 0,
                   start: int = 0) -> list[Dialogue]:
    """Rows start to start + n - 1 of a split."""
    return [make_dialogue(world, split=split, seed=seed, index=index) for index in range(start, start + n)]


def world_named(world: World | str) -> World:
    """A world itself, or the preset of that name; ValueError if there is none."""
    if isinstance(world, World):
        return world
    if world not in PRESETS:
        raise ValueError(f"unknown preset {world!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[world]


class Dice:
    """Draws that are the same on every machine and version: Python promises that for `random()` alone."""

    def __init__(self, seed: str):
        self.random = random.Random(seed).random

    def pick(self, items: Sequence) -> Any:
        return items[int(self.random() * len(items))]

    def some(self, items: Sequence, n: int | None = None) -> list:
        """`n` different items in random order; all of them without `n`."""
        items = list(items)
        n = len(items) if n is None else n
        for i in range(n):
            j = i + int(self.random() * (len(items) - i))
            items[i], items[j] = items[j], items[i]
        return items[:n]

    def count(self, n: int, share: float) -> int:
        """How many of `n` things happen when each does with probability `share`."""
        return sum(self.random() < share for _ in range(n))


# -- the plan: when each asked fact is written and asked
@dataclass
class _Plan:
    """A fact that will be asked: when it is written, when it is asked, then what it is."""

    writes: list[int]                                                    # two when it changes, none when it is never told
    ask: int
    far: bool = False                                                    # told before the gap, asked after it
    key: Key = ("", "")
    values: list[str] = field(default_factory=list)                      # one for each write; the last one is true
    thing: str = ""                                                      # what the person has who is asked about, if that is how


def _plan(world: World, dice: Dice) -> list[_Plan]:
    if not world.gap:
        return _near_plans(world, dice, world.turns)
    before = world.turns - world.gap - world.n_far
    plans = _near_plans(world, dice, world.gap)
    for plan in plans:
        plan.writes, plan.ask = [turn + before for turn in plan.writes], plan.ask + before
    told = dice.some(range(before), world.n_far)
    asked = dice.some(range(before + world.gap, world.turns))
    return plans + [_Plan([write], ask, far=True) for write, ask in zip(told, asked)]


def _near_plans(world: World, dice: Dice, turns: int) -> list[_Plan]:
    """Plans for `turns` turns, one question fewer where chance finds no room for all of them.

    The n distances come from n equal strata of 1 to the longest, one from each: together they are uniform, and
    they nearly always fit. n free draws often do not (two of the longest exclude each other), and drawing again
    until they fit would leave too few long ones.
    """
    longest = turns - (2 if world.overwrites == 1 else 1)
    for n in range(world.probes, 0, -1):
        for _ in range(50):
            distances = [world.distance or 1 + int((i + dice.random()) / n * longest) for i in range(n)]
            changes = dice.count(n, world.overwrites)
            for wanted in range(changes, changes - 1 if world.overwrites == 1 else -1, -1):
                for _ in range(10):
                    plans = _place(world, dice, turns, distances, wanted)
                    if plans:
                        return plans
    raise AssertionError(f"one question always fits, but not in {world}")


def _place(world: World, dice: Dice, turns: int, distances: list[int], changes: int) -> list[_Plan]:
    """Random turns for these distances, the longest first, `changes` of them written twice; [] if there is no room."""
    full = world.facts_per_tell
    load = [0] * turns                                                   # facts told in this turn; full where one asks
    plans = []
    for distance in sorted(distances, reverse=True):
        room = [t for t in range(turns - distance) if load[t] < full and load[t + distance] == 0]
        if not room:
            return []
        write = dice.pick(room)
        load[write] += 1
        load[write + distance] = full
        plans.append(_Plan([write], write + distance))
    for plan in dice.some(plans) if changes else ():
        room = [t for t in range(plan.writes[0]) if load[t] < full]
        if room and changes:
            changes -= 1
            plan.writes.insert(0, dice.pick(room))
            load[plan.writes[0]] += 1
    return [] if changes else plans


# -- the facts: what is told
def _keys(world: World, dice: Dice) -> tuple[list[Key], list[Key]]:
    """All (attribute, entity) of this dialogue in random order: those spoken about in the gap, and the others."""
    people, objects = dice.some(PEOPLE[:world.cast], world.people), dice.some(OBJECTS[:world.cast], world.objects)
    if not world.gap:
        return dice.some(_keys_of(people + objects)), []
    far = people[:len(people) // 2] + objects[:len(objects) // 2]
    return dice.some(_keys_of([e for e in people + objects if e not in far])), dice.some(_keys_of(far))


def _keys_of(entities: list[str]) -> list[Key]:
    return [(name, e) for e in entities for name in (OF_OBJECTS if e in OBJECTS else OF_PEOPLE)]


def _values_of(plan: _Plan, dice: Dice, split: str, others: list[Key]) -> list[str]:
    """A value for each write of the plan, the true one last; one value, which nobody tells, where there is no write."""
    values = _values(*plan.key, split == "test_combo")
    if split == "test_distance":                                         # nothing else may show the value
        entities = {entity for _, entity in others}
        values = tuple(v for v in values if v not in entities)
    true = dice.pick(values)
    old = [v for v in _values(*plan.key, False) if v != true]
    return [*(dice.pick(old) for _ in plan.writes[1:]), true]


def _tell_who_has_what(dice: Dice, acts: list["_Turn"], plan: _Plan, near: list[Key]) -> None:
    """Tell, before the question, which thing the person has; in a turn of its own where there is one. The thing has one holder."""
    person = plan.key[1]
    free = [turn for turn in range(plan.ask) if not acts[turn].tells] or plan.writes
    plan.thing = dice.pick([thing for name, thing in near if name == "holder"])
    near[:] = [key for key in near if key != ("holder", plan.thing)]
    acts[dice.pick(free)].tells.append(("holder", plan.thing, person, False))


# -- the other turns
@dataclass
class _Turn:
    """What one turn does: tells facts (attribute, entity, value, is it a change), asks, or (neither) chats."""

    tells: list[tuple[str, str, str, bool]] = field(default_factory=list)
    asks: _Plan | None = None


def _fill(world: World, dice: Dice, acts: list[_Turn], plans: list[_Plan], near: list[Key], far: list[Key]) -> None:
    """Give the free turns chatter and facts that nobody asks for."""
    asked = {(plan.key[0], plan.values[-1]) for plan in plans if plan.writes}
    before = world.turns - world.gap - world.n_far if world.gap else 0
    keys = [far if world.gap and turn < before else near for turn in range(world.turns)]

    def tell_something(turn: int) -> None:                               # nothing that shows the value of an asked fact
        attribute, entity = keys[turn].pop()
        values = [v for v in _values(attribute, entity, False) if (attribute, v) not in asked]
        acts[turn].tells.append((attribute, entity, dice.pick(values), False))

    free = [t for t, turn in enumerate(acts) if not turn.tells and turn.asks is None]
    for turn in dice.some(free):
        if dice.random() >= world.chatter and keys[turn]:
            tell_something(turn)
    for turn, act in enumerate(acts):
        while act.tells and len(act.tells) < world.facts_per_tell and keys[turn]:
            tell_something(turn)


def _speak(world: World, dice: Dice, turn: _Turn) -> Event:
    if turn.tells:
        facts = dice.some(turn.tells)
        query = " ".join(dice.pick((ATTRIBUTES[a].change if change else ATTRIBUTES[a].tell)[:world.templates])
                         .format(e=e, v=v) for a, e, v, change in facts)
        if world.ack_repeats:
            return Event(query, " ".join(ATTRIBUTES[a].answer.format(e=e, v=v) for a, e, v, _ in facts))
        return Event(query, dice.pick(ACKNOWLEDGEMENTS[:world.templates]))
    if turn.asks is None:
        return Event(*dice.pick(CHATTER[:world.templates * len(CHATTER) // LEVELS]))
    name, entity = turn.asks.key
    frame = ATTRIBUTES[name].ask_otherwise if world.paraphrase else dice.pick(ATTRIBUTES[name].ask[:world.templates])
    query = ATTRIBUTES[name].ask_by_thing.format(e=turn.asks.thing) if turn.asks.thing else frame.format(e=entity)
    return Event(query, ATTRIBUTES[name].answer.format(e=entity, v=turn.asks.values[-1]) if turn.asks.writes else REFUSAL)


def _probes(acts: list[_Turn], events: Sequence[Event], split: str) -> tuple[Probe, ...]:
    words = [set(re.findall(r"\w+", f"{event.query} {event.answer}")) for event in events]
    stored, probes = set(), []
    for turn, act in enumerate(acts):
        stored.update(fact[:2] for fact in act.tells)
        plan = act.asks
        if plan is None:
            continue
        name, entity = plan.key
        common = dict(turn=turn, attribute=name, entity=entity, stored=len(stored),
                      rivals=sum(told == name and other != entity for told, other in stored),
                      options=len(ATTRIBUTES[name].values if split == "test_combo" else _values(name, entity, False)))
        if not plan.writes:
            probes.append(Probe(kind="unknown", **common))
            continue
        *stale, value = plan.values
        probes.append(Probe(kind="recall", value=value, distance=turn - plan.writes[-1],
                            seen=next(d for d in range(1, turn + 1) if value in words[turn - d]),
                            writes=len(plan.writes), stale=tuple(stale), **common))
    return tuple(probes)


# ---------------------------------------------------------------------------------------------- rows of a data set
def to_row(dialogue: Dialogue) -> dict:
    """The hub's schema (query, answer, interactions: the events after the first) with the probes beside it."""
    first, *rest = (asdict(event) for event in dialogue.events)
    return {**first, "interactions": rest,
            "probes": [{**asdict(probe), "stale": list(probe.stale)} for probe in dialogue.probes]}


def from_row(row: Mapping) -> Dialogue:
    """The dialogue of a row; `interactions` and `probes` may be missing or None, as in single-event sets."""
    pairs = [row, *(row.get("interactions") or [])]
    return Dialogue(tuple(Event(pair["query"], pair["answer"]) for pair in pairs),
                    tuple(Probe(**{**probe, "stale": tuple(probe["stale"])}) for probe in row.get("probes") or []))


def FEATURES() -> "datasets.Features":  # noqa: N802, F821  (a constant that is costly to import)
    """The columns of `to_row` for the `datasets` library: interactions are a LIST OF STRUCTS.

    `Sequence({...})` would turn them into a dict of lists.
    """
    from datasets import Features, Value

    text, number = Value("string"), Value("int32")
    pair = {"query": text, "answer": text}
    probe = {"turn": number, "kind": text, "attribute": text, "entity": text, "value": text, "distance": number,
             "seen": number, "writes": number, "stale": [text], "options": number, "stored": number, "rivals": number}
    return Features({**pair, "interactions": [pair], "probes": [probe]})


# ---------------------------------------------------------------------------------------------- is an answer right
def answer_is_right(probe: Probe, answer: str) -> bool:
    """Does the answer hold the value as whole words, and no other value of that attribute?

    For a question of kind "unknown" the right answer refuses and holds no value at all.
    """
    return classify(probe, answer) == "right"


def classify(probe: Probe, answer: str) -> str:
    """"right", "stale" (a value from before), "refused" (said not to know what it was told), or "other".

    Raises ValueError for a probe of kind "next", which has many right answers.
    """
    if probe.kind == "next":
        raise ValueError("a story can go on in many ways: a probe of kind 'next' has no single right answer")
    attribute = ATTRIBUTES.get(probe.attribute)
    candidates = {probe.value, *probe.stale, *(attribute.values if attribute else ())} - {""}
    found = {value for value in candidates if _holds(answer, value)}
    refused = not found and _holds(answer, REFUSAL.rstrip("."))
    if probe.kind == "unknown":
        return "right" if refused else "other"
    if found == {probe.value}:
        return "right"
    if found and found <= set(probe.stale):
        return "stale"
    return "refused" if refused else "other"


def _holds(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, flags=re.IGNORECASE) is not None
