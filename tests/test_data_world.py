"""The small world says what it means: an oracle that reads only the text agrees with every answer and every number."""
import hashlib
import json
import re
from collections import Counter, defaultdict

import pytest

from rxt_lite.data.dialogues import (
    EXAMPLE,
    FEATURES,
    PRESETS,
    SPLITS,
    Event,
    Probe,
    World,
    answer_is_right,
    classify,
    from_row,
    held_out,
    make_dialogue,
    make_dialogues,
    to_row,
)
from rxt_lite.data.world import ATTRIBUTES, CHATTER, COLOURS, FOODS, OBJECTS, PEOPLE, PET_NAMES, PETS, PLACES, facts_told

# ------------------------------------------------------------------------------------------------- the oracle
# It knows the word lists and English; it has never heard of probes, plans or templates.
OBJ, WHO = "(?P<e>%s)" % "|".join(OBJECTS), "(?P<e>%s)" % "|".join(PEOPLE)
COLOUR, PLACE, HOLDER, FOOD, PET, NAME = ("(?P<v>%s)" % "|".join(words)
                                          for words in (COLOURS, PLACES, PEOPLE, FOODS, PETS, PET_NAMES))
NOW = "(?:now |then |these days )?"
STATEMENTS = {
    "colour": [f"{NOW}the {OBJ} is {COLOUR}(?: now)?", f"i painted the {OBJ} {COLOUR}",
               f"the colour of the {OBJ} is (?:now )?{COLOUR}"],
    "place": [f"{NOW}the {OBJ} is in the {PLACE}(?: now)?", f"i (?:left|moved) the {OBJ} (?:in|to) the {PLACE}",
              f"you can find the {OBJ} in the {PLACE}"],
    "holder": [f"{NOW}{HOLDER} has the {OBJ}(?: now)?", f"i gave the {OBJ} to {HOLDER}",
               f"{NOW}{HOLDER} took the {OBJ}"],
    "food": [f"{NOW}{WHO} likes {FOOD}(?: now)?", f"{WHO} loves to eat {FOOD}", f"the best food for {WHO} is {FOOD}"],
    "pet": [f"{NOW}{WHO} (?:has|keeps) a {PET}(?: now)?", f"{WHO}'s pet is a {PET}"],
    "pet name": [f"{NOW}{WHO}'s pet is called {NAME}(?: now)?", f"{NOW}{WHO} calls the pet {NAME}",
                 f"the name of {WHO}'s pet is {NAME}"],
}
QUESTIONS = {
    "colour": [f"what colour is the {OBJ}", f"which colour does the {OBJ} have",
               f"do you know the colour of the {OBJ}", f"what is the colour of the {OBJ}"],
    "place": [f"where is the {OBJ}", f"where can (?:i|you) find the {OBJ}", f"do you know where the {OBJ} is"],
    "holder": [f"who has the {OBJ}", f"(?:which|what) child has the {OBJ}", f"do you know who has the {OBJ}"],
    "food": [f"what food does {WHO} like", f"what does {WHO} like to eat", f"do you know what {WHO} likes to eat",
             f"which food does {WHO} like"],
    "pet": [f"what pet does {WHO} have", f"which animal does {WHO} keep", f"do you know what (?:pet|animal) {WHO} has"],
    "pet name": [f"what is {WHO}'s pet called", f"what is the name of {WHO}'s pet",
                 f"do you know the name of {WHO}'s pet", f"what name does {WHO}'s pet have",
                 f"what is the name of the pet of {WHO}"],
}
WORDS = {"colour": COLOURS, "place": PLACES, "holder": PEOPLE, "food": FOODS, "pet": PETS, "pet name": PET_NAMES}
VALUE = re.compile(r"\b(%s)\b" % "|".join(word for words in WORDS.values() for word in words))
COMPILED = {kind: [(attribute, re.compile(pattern, re.IGNORECASE)) for attribute, patterns in table.items()
                   for pattern in patterns]
            for kind, table in (("statement", STATEMENTS), ("question", QUESTIONS))}


def read(kind, sentence):
    hits = [(attribute, match.groupdict()) for attribute, pattern in COMPILED[kind]
            if (match := pattern.fullmatch(sentence.strip(" .?!")))]
    assert len(hits) <= 1, f"ambiguous: {sentence}"
    return hits[0] if hits else None


def facts_in(text):
    """(attribute, entity, value) of every statement in `text`; a sentence that states nothing holds no value."""
    for sentence in re.findall(r"[^.!?]+[.!?]", text):
        hit = read("statement", sentence)
        assert hit or not VALUE.search(sentence), f"a value outside of a fact: {sentence}"
        if hit:
            yield hit[0], hit[1]["e"], hit[1]["v"]


def oracle(events):
    """Reads the dialogue, checks every answer, and returns what it thinks of every question."""
    told, verdicts = defaultdict(list), []
    for turn, event in enumerate(events):
        query = re.sub(f"the child who has the {OBJ}", lambda thing: told["holder", thing["e"]][-1][1], event.query)  # the first hop
        question = read("question", query) if event.query.endswith("?") else None
        if not question:
            facts = list(facts_in(event.query))
            for attribute, entity, value in facts:
                told[attribute, entity].append((turn, value))
            repeated = list(facts_in(event.answer))
            assert repeated in ([], facts)
            continue
        attribute, entity = question[0], question[1]["e"]
        history = told.get((attribute, entity))
        verdict = dict(turn=turn, attribute=attribute, entity=entity, stored=len([key for key in told if told[key]]),
                       rivals=len([1 for name, other in told if told[name, other] and name == attribute and other != entity]))
        if not history:
            assert event.answer == "I do not know."
            verdicts.append(dict(verdict, kind="unknown", value="", distance=0, seen=0, writes=0, stale=()))
            continue
        written, value = history[-1]
        assert all(old != new for (_, old), (_, new) in zip(history, history[1:])), "a change that changes nothing"
        assert list(facts_in(event.answer)) == [(attribute, entity, value)]
        past = [f"{e.query} {e.answer}" for e in events[:turn]]
        seen = turn - max(t for t, text in enumerate(past) if re.search(rf"\b{value}\b", text))
        verdicts.append(dict(verdict, kind="recall", value=value, distance=turn - written, seen=seen,
                             writes=len(history), stale=tuple(v for _, v in history[:-1])))
    return verdicts, {(a, e, v) for (a, e), history in told.items() for _, v in history}


def agree(dialogue, split):
    verdicts, facts = oracle(dialogue.events)
    assert len(verdicts) == len(dialogue.probes)
    for verdict, probe in zip(verdicts, dialogue.probes):
        words = len(WORDS[probe.attribute])
        options = words if split == "test_combo" else words - max(1, words // 10)
        assert Probe(**verdict, options=options) == probe
        assert answer_is_right(probe, dialogue.events[probe.turn].answer)
        asked_before = [p for p in verdicts if p["turn"] < probe.turn]
        assert (probe.attribute, probe.entity) not in {(p["attribute"], p["entity"]) for p in asked_before}
    return facts


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_oracle_agrees_with_every_answer_and_every_number(preset, split):
    for dialogue in make_dialogues(preset, 200, split=split, seed=7):
        agree(dialogue, split)


@pytest.mark.parametrize("world", [
    World(facts_per_tell=3, ack_repeats=True), World(distance=4), World(turns=12, probes=4, chatter=0),
    World(people=3, objects=0, overwrites=1, turns=12), World(turns=30, probes=3, unknowns=0.5),
    World(turns=2, probes=1), World(turns=13, gap=6, probes=2, facts_per_tell=2),
], ids=str)
def test_the_oracle_agrees_whichever_knob_is_turned(world):
    for dialogue in make_dialogues(world, 150):
        agree(dialogue, "train")


# ------------------------------------------------------------------------------------------------- same bytes
BYTES = {
    "easy": "6ba21a4ee625649212d4b5e143044ba97e9e17f64d8815216316e9489b09cdb7",
    "base": "44e1507c1226e87f331923923f747d3111ec8c623cb4cfa749be157e53940715",
    "long": "7a7535b4d60b8504e5dea91634fe552aa11c1cbb239265008edb19e0392aa0e3",
    "far": "14290a4becde72484a65c2cfcac30c5926a56226011d91573a8a84fbec5a6eab",
    "overwrite": "99da6e4df4b047a7c17da9bc72727f03923ca2ada31da9eef7cfdd924fd82029",
    "long_range": "038bd9307fed65648dab97b0af2756221412efd3b6655022a9b06e8abb122670",
    "unsure": "359550175bf794189a823a582bc9036ee7e1072da2448115164fb6c251c1ab89",
    "things": "8b0cb2adf95d6eb1ba32dabae6f5045d344b8775de3e0b2137b707e97ea0d99f",
    "hard": "e74e69370041f8c79225f4e3af52f6040809c9f27f4ed94fa2f386639dac7261",
}


def digest(preset):
    rows = [to_row(dialogue) for dialogue in make_dialogues(preset, 200)]
    for probe in (probe for row in rows for probe in row["probes"]):
        del probe["rivals"]  # counted since, from the same text: the oracle above counts them too
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_gives_the_same_bytes_on_every_machine(preset):
    assert digest(preset) == BYTES[preset], "every number measured on this world has to be measured again"


def test_hard_tells_five_facts_or_more_and_asks_at_every_distance():
    dialogues = make_dialogues("hard", 400)
    told = [sum(not event.query.endswith("?") for event in d.events) for d in dialogues]
    assert set(told) == {5} and all(len(d.probes) == 4 for d in dialogues)
    counts = Counter(p.distance for d in dialogues for p in d.probes)
    assert set(counts) == set(range(1, 9)) and min(counts.values()) > 0.6 * max(counts.values())


def test_a_row_can_be_made_alone():
    assert make_dialogues("base", 3, split="valid", seed=5, start=40)[2] == make_dialogue(
        "base", split="valid", seed=5, index=42)


def test_seed_split_and_index_each_change_the_dialogue():
    others = make_dialogue("base", seed=1), make_dialogue("base", split="valid"), make_dialogue("base", index=1)
    assert make_dialogue("base") not in others
    assert len({d.events for d in make_dialogues("easy", 3000)}) > 2900


# ------------------------------------------------------------------------------------------------- splits
def told(split, n, preset="base"):
    return set().union(*(agree(d, split) for d in make_dialogues(preset, n, split=split)))


def test_no_triple_asked_in_test_combo_is_ever_told_elsewhere():
    asked = {(p.attribute, p.entity, p.value) for d in make_dialogues("base", 1000, split="test_combo")
             for p in d.probes if p.kind == "recall"}
    elsewhere = told("train", 1500) | told("valid", 300) | told("test_iid", 300) | told("test_long", 200)
    assert len(asked) > 100 and not asked & elsewhere
    assert all(held_out(*triple) for triple in asked)


def test_about_one_in_ten_triples_is_held_out_evenly():
    triples = [(name, e, v) for name, kind in ATTRIBUTES.items() for e in kind.entities for v in kind.values]
    assert 0.08 < sum(held_out(*t) for t in triples) / len(triples) < 0.12
    for name, kind in ATTRIBUTES.items():
        per_value = Counter(v for n, e, v in triples if n == name and held_out(n, e, v))
        assert max(per_value.values()) - min(per_value[v] for v in kind.values) <= 1


def test_distances_are_uniform_where_they_are_drawn():
    for preset, turns in (("easy", 5), ("base", 9), ("overwrite", 9), ("long", 17)):
        counts = Counter(p.distance for d in make_dialogues(preset, 1200) for p in d.probes if p.kind == "recall")
        mean = sum(counts.values()) / (turns - 1)
        assert set(counts) == set(range(1, turns))
        assert all(abs(n - mean) < 4.5 * mean ** 0.5 for n in counts.values()), (preset, counts)


def test_a_paraphrase_is_asked_nowhere_else_and_in_known_words():
    asked = lambda split: {q for d in make_dialogues("base", 300, split=split) for q in (e.query for e in d.events) if q.endswith("?")}  # noqa: E731
    frames = [frame for kind in ATTRIBUTES.values() for frame in (*kind.tell, *kind.change, *kind.ask, kind.answer)]
    known = set(re.findall(r"\w+", " ".join(frames)))
    for kind in ATTRIBUTES.values():
        assert kind.ask_otherwise not in kind.ask
        assert set(re.findall(r"\w+", kind.ask_otherwise)) <= known, "a word in another case is another token"
    chat = {query for query, _ in CHATTER}
    assert not (asked("test_paraphrase") - chat) & (asked("train") | asked("test_iid"))


@pytest.mark.parametrize("world", ["base", "hard", World(turns=3, people=1, objects=1, probes=1)])
def test_two_hop_names_a_person_only_by_the_one_thing_they_have_and_by_nobody_elses(world):
    for dialogue in make_dialogues(world, 200, split="test_two_hop"):
        (probe,) = dialogue.probes
        frame = re.escape(ATTRIBUTES[probe.attribute].ask_by_thing).replace(r"\{e\}", r"(\w+)")
        (thing,) = re.fullmatch(frame, dialogue.events[probe.turn].query).groups()
        told = [fact for event in dialogue.events for fact in facts_told(event.query)]
        assert [fact for fact in told if fact[:2] == ("holder", thing)] == [("holder", thing, probe.entity)], "told once, of one person"
        before = [fact for event in dialogue.events[: probe.turn] for fact in facts_told(event.query)]
        assert ("holder", thing, probe.entity) in before and (probe.attribute, probe.entity, probe.value) in before
    known = set(re.findall(r"\w+", " ".join(frame for kind in ATTRIBUTES.values() for frame in (*kind.tell, *kind.change, *kind.ask))))
    assert all(set(re.findall(r"\w+", kind.ask_by_thing)) <= known for kind in ATTRIBUTES.values())


def test_test_distance_asks_every_distance_equally_often_and_shows_the_value_once():
    probes = [p for d in make_dialogues("base", 400, split="test_distance") for p in d.probes if p.kind == "recall"]
    assert Counter(p.distance for p in probes) == {d: 50 for d in range(1, 9)}
    assert all(p.seen == p.distance for p in probes)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_planned_question_is_asked(preset):
    far = PRESETS[preset].n_far
    for dialogue in make_dialogues(preset, 300):
        assert len(dialogue.events) == PRESETS[preset].turns
        assert len(dialogue.probes) == PRESETS[preset].probes + far


def test_shares_are_what_the_knobs_say():
    probes = [p for d in make_dialogues("base", 3000) for p in d.probes]
    recall = [p for p in probes if p.kind == "recall"]
    assert sum(p.kind == "unknown" for p in probes) / len(probes) == pytest.approx(0.12, abs=0.015)
    assert sum(p.writes == 2 for p in recall) / len(recall) == pytest.approx(0.15, abs=0.015)
    assert 2 < sum(p.stored for p in recall) / len(recall) < 4
    changed = [p for d in make_dialogues("base", 100, split="test_overwrite") for p in d.probes if p.kind == "recall"]
    assert 160 < len(changed) < 190 and all(p.stale for p in changed)
    assert len(make_dialogue("base", split="test_long").events) == 18


def test_no_turn_gives_away_whether_there_is_an_answer():
    for preset in ("base", "long", "overwrite"):
        asked, unknown = Counter(), Counter()
        for probe in (p for d in make_dialogues(preset, 3000, seed=2) for p in d.probes):
            asked[probe.turn] += 1
            unknown[probe.turn] += probe.kind == "unknown"
        share = PRESETS[preset].unknowns
        for turn, n in asked.items():
            assert abs(unknown[turn] - share * n) < 4 * (share * (1 - share) * n) ** 0.5 + 1, (preset, turn)


def test_long_range_asks_about_the_first_story_after_eight_turns_about_others():
    for dialogue in make_dialogues("long_range", 100):
        far = [p for p in dialogue.probes if p.turn >= 10]
        middle = {fact[1] for event in dialogue.events[2:10]
                  for fact in facts_in(event.answer if event.query.endswith("?") else event.query)}
        assert len(far) == 2 and all(p.distance > 8 for p in far if p.kind == "recall")
        assert middle and not middle & {p.entity for p in far}


# ------------------------------------------------------------------------------------------------- chance
@pytest.fixture(scope="module")
def many():
    return [p for d in make_dialogues("base", 6000, seed=3) for p in d.probes if p.kind == "recall"]


def test_values_are_uniform_over_their_options(many):
    for name, kind in ATTRIBUTES.items():
        probes = [p for p in many if p.attribute == name]
        expected = Counter()
        for p in probes:
            for v in kind.values:
                expected[v] += (not held_out(name, p.entity, v)) / p.options
        seen = Counter(p.value for p in probes)
        chi2 = sum((seen[v] - expected[v]) ** 2 / expected[v] for v in kind.values)
        df = len(kind.values) - 1
        assert chi2 < df + 3.5 * (2 * df) ** 0.5, (name, chi2)


def test_options_counts_what_training_shows(many):
    shown = defaultdict(set)
    for p in many:
        shown[p.attribute, p.entity] |= {p.value, *p.stale}
    full = sum(len(shown[p.attribute, p.entity]) == p.options for p in many) / len(many)
    assert full > 0.9 and all(len(shown[p.attribute, p.entity]) <= p.options for p in many)


def test_the_best_guess_without_memory_is_chance(many):
    votes = defaultdict(Counter)
    for p in many:
        votes[p.attribute, p.entity][p.value] += 1
    new = [p for d in make_dialogues("base", 3000, split="valid") for p in d.probes if p.kind == "recall"]
    right = sum(votes[p.attribute, p.entity].most_common(1)[0][0] == p.value for p in new) / len(new)
    assert right == pytest.approx(sum(1 / p.options for p in new) / len(new), abs=0.01)


def test_a_value_belongs_to_one_attribute_and_chatter_has_none():
    words = [v for name, kind in ATTRIBUTES.items() for v in kind.values]
    assert len(words) == len(set(words))
    assert not VALUE.search(" ".join(text for pair in CHATTER for text in pair))


# ------------------------------------------------------------------------------------------------- right or wrong
def test_an_answer_is_right_when_it_holds_the_value_and_no_other():
    probe = Probe(turn=3, kind="recall", attribute="colour", entity="hat", value="red", stale=("blue",), writes=2)
    assert classify(probe, "The hat is red.") == "right" and classify(probe, "Red!") == "right"
    assert classify(probe, "It was blue.") == "stale"
    assert classify(probe, "I do not know.") == "refused"
    assert {classify(probe, text) for text in ("red or blue", "The hat is green.", "bored", "reddish", "")} == {"other"}
    assert answer_is_right(probe, "red") and not answer_is_right(probe, "red, green")


def test_the_right_answer_to_what_was_never_told_is_a_refusal():
    probe = Probe(turn=3, kind="unknown", attribute="food", entity="Tim")
    assert answer_is_right(probe, "I do not know.")
    assert not answer_is_right(probe, "Tim likes soup.") and not answer_is_right(probe, "I do not know. Soup?")


def test_going_on_with_a_story_has_no_right_answer():
    with pytest.raises(ValueError, match="many ways"):
        classify(Probe(turn=1, kind="next", attribute="story", entity=""), "Then they went home.")


# ------------------------------------------------------------------------------------------------- rows
def test_rows_survive_parquet(tmp_path):
    from datasets import Dataset, load_dataset

    dialogues = make_dialogues("overwrite", 20) + make_dialogues("easy", 5)
    path = tmp_path / "dialogues.parquet"
    Dataset.from_list([to_row(d) for d in dialogues], features=FEATURES()).to_parquet(path)
    back = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert back.features == FEATURES()
    assert [from_row(row) for row in back] == dialogues


def test_a_hub_set_with_its_columns_the_other_way_round_is_the_same_schema():
    from datasets import Dataset, Features, Value, concatenate_datasets

    pair = {"answer": Value("string"), "query": Value("string")}
    hub = Dataset.from_list([{"answer": "a0", "query": "q0", "interactions": [{"answer": "a1", "query": "q1"}]}],
                            features=Features({**pair, "interactions": [pair]}))
    ours = Features({name: kind for name, kind in FEATURES().items() if name != "probes"})
    world = Dataset.from_list([to_row(make_dialogue("easy"))], features=FEATURES()).remove_columns("probes")
    both = concatenate_datasets([hub.select_columns(list(ours)).cast(ours), world])
    assert from_row(both[0]).events == (Event("q0", "a0"), Event("q1", "a1"))
    assert from_row(both[1]).events == make_dialogue("easy").events


def test_a_row_of_a_single_event_needs_no_other_columns():
    for row in ({"query": "q", "answer": "a"}, {"query": "q", "answer": "a", "interactions": None, "probes": None}):
        assert from_row(row).events == (Event("q", "a"),)


# ------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("wrong, says", [
    (dict(turns=1), "turns=1"), (dict(people=25), "people=25"), (dict(templates=4), "templates=4"),
    (dict(probes=5), "probes=5"), (dict(overwrites=1.5), "overwrites=1.5"), (dict(unknowns=1.1), "unknowns=1.1"),
    (dict(distance=9), "distance=9"), (dict(people=0, objects=0), "0 people and 0 objects"),
    (dict(gap=4, people=1), "at least 2 people"), (dict(overwrites=1, probes=4), "probes=4"),
])
def test_a_knob_turned_too_far_is_named(wrong, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        World(**wrong)


def test_an_unknown_preset_or_split_names_the_choices():
    with pytest.raises(ValueError, match="'esay'.*easy, base, long"):
        make_dialogue("esay")
    with pytest.raises(ValueError, match="'test'.*train, valid, test_iid"):
        make_dialogue("easy", split="test")


def test_a_small_cast_is_all_that_anybody_speaks_about():
    few = World(people=3, objects=2, cast=4, probes=2)
    spoken_about = {probe.entity for dialogue in make_dialogues(few, 200) for probe in dialogue.probes}
    assert spoken_about == {*PEOPLE[:4], *OBJECTS[:4]}
    with pytest.raises(ValueError, match="cast=2 does not fit"):
        World(people=3, cast=2)


def test_the_oracle_agrees_with_the_example_of_the_book():
    agree(EXAMPLE, "train")
    assert [probe.value for probe in EXAMPLE.probes] == ["Momo", "tower", "Sam"]
