"""What slots hold: the recorder changes nothing, and every definition is checked on an example made by hand."""

import doctest
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_recall import PerfectMemory
from typer.testing import CliRunner

from rxt_lite.cli import app, saved
from rxt_lite.config import GATES, MEMORY_ATTENTIONS, TINY
from rxt_lite.data import world
from rxt_lite.data.dialogues import Dialogue, Event, Probe, make_dialogues
from rxt_lite.data.tokenizer import encode_event, world_tokenizer
from rxt_lite.experiments import slots
from rxt_lite.experiments.probe import Snapshots, linear_probe, moments_of, probe_rows, snapshots
from rxt_lite.experiments.recall import memory_reset
from rxt_lite.experiments.slots import (
    answered,
    ask_facts,
    content_rows,
    contents,
    event_rows,
    held,
    read_entropy,
    slot_tables,
    survival_rows,
    trace_rows,
    use_rows,
)
from rxt_lite.experiments.trace import Trace, attention_weights, own_events, record
from rxt_lite.models import RxT

TOKENIZER = world_tokenizer()
CONFIG = replace(TINY, vocab_size=TOKENIZER.get_vocab_size(), n_layers=3, n_slots=5, d_model=32)
DIALOGUES = make_dialogues("base", 6, split="test_iid", seed=3)


def model_of(**options):
    torch.manual_seed(0)
    return RxT(replace(CONFIG, **options)).eval()


def events_of(dialogue):
    return [torch.tensor([encode_event(TOKENIZER, event.query, event.answer)]) for event in dialogue.events]


# ------------------------------------------------------------------------------------------------ the recorder
@pytest.mark.parametrize("options", [
    *({"memory_attention": v, "gate": "linear", "stateless_before": 1, "stateless_after": 2} for v in MEMORY_ATTENTIONS),
    *({"gate": g} for g in GATES), {"initial_slots": "gaussian", "gate_activation": "tanh"},
], ids=str)
@torch.no_grad()
def test_the_trace_holds_the_slots_that_remember_makes(options):
    model, events = model_of(**options), events_of(DIALOGUES[0])
    torch.manual_seed(1)
    trace = record(model, events)
    torch.manual_seed(1)
    stm = model.init_state(1)
    for n, tokens in enumerate(events):
        assert torch.equal(trace.slots[n], stm[:, 0])
        before, stm = stm, model.remember(tokens, stm)
        assert torch.equal(trace.slots[n + 1], stm[:, 0])
        torch.testing.assert_close(trace.change[n], (stm - before)[:, 0].pow(2).mean(-1).sqrt())
        torch.testing.assert_close(trace.cosine[n], F.cosine_similarity(stm, before, dim=-1)[:, 0])
    assert (trace.gate is None) is (model.memory.gate.kind in ("none", "replace"))
    assert not any(module._forward_hooks for module in model.modules()), "nobody looks on any longer"


@torch.no_grad()
def test_the_gates_are_those_that_mix_old_and_new():
    model, events = model_of(), events_of(DIALOGUES[0])
    trace = record(model, events)
    stm = trace.slots[2].unsqueeze(1)
    update = model.memory.update(stm, model.encode(events[2]), model.rope(torch.arange(events[2].shape[1])))[:, 0]
    g = trace.gate[2].unsqueeze(-1)
    torch.testing.assert_close(g * update + (1 - g) * trace.slots[2], trace.slots[3])


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1), (2, 2), (2, 4)], ids=str)
@torch.no_grad()
def test_weights_are_those_that_attention_uses(heads):
    """Weights times values, through the output map, is what the layer itself returns."""
    model = model_of(memory_heads=heads, cross_heads=heads, query_key_norm=True)
    for attention, layers in ((model.memory.attention, (3,)), (model.decoder[0].memory, ())):
        x, source = torch.randn(*layers, 1, 5, 32), torch.randn(*layers, 1, 7, 32)
        keys, values = attention.keys_values(source)
        weights = attention_weights(attention, x, keys)
        assert weights.shape == (*x.shape[:-2], max(heads), 5, 7)
        values = values.repeat_interleave(max(heads) // heads[1], dim=-3)
        out = attention.to_out((weights @ values).transpose(-3, -2).flatten(-2))
        torch.testing.assert_close(out, attention(x, source))


@torch.no_grad()
def test_maps_are_shares():
    trace = record(model_of(stateless_before=1), events_of(DIALOGUES[0]))
    for tokens, write, read in zip(trace.tokens, trace.write, trace.read):
        assert write.shape == (3, 5, len(tokens)) and read.shape == (3, len(tokens), 5)
        torch.testing.assert_close(write.sum(-1), torch.ones(3, 5))
        torch.testing.assert_close(read.sum(-1), torch.ones(3, len(tokens)))


@torch.no_grad()
def test_reading_is_from_the_memory_before_the_event():
    """A memory whose slots are all alike is read evenly, whatever the event writes."""
    model = model_of()
    model.initial_slots.copy_(model.initial_slots[:, :1].expand_as(model.initial_slots))
    trace = record(model, events_of(DIALOGUES[0]))
    torch.testing.assert_close(trace.read[0], torch.full_like(trace.read[0], 1 / 5))
    assert (trace.read[1] - 1 / 5).abs().max() > 1e-4


def test_own_events_hold_the_models_own_answers():
    model = model_of()
    events = own_events(model, DIALOGUES[0], TOKENIZER, max_new_tokens=4)
    for mine, given, event in zip(events, events_of(DIALOGUES[0]), DIALOGUES[0].events):
        query = len(encode_event(TOKENIZER, event.query, "")) - 1  # but for [EOS]
        assert torch.equal(mine[:, :query], given[:, :query]) and query < mine.shape[1] <= query + 4


# ------------------------------------------------------------------------------------------------ definitions
def test_the_worked_example_is_right():
    for module in (slots, world):
        done = doctest.testmod(module)
        assert done.attempted and not done.failed


def turning(*angles):
    """A trace of one slot that stands at these angles, in degrees, before the first event and after each; a second one stays."""
    radians = torch.tensor(angles).deg2rad()
    slot = torch.stack([radians.cos(), radians.sin()], dim=-1)  # (N + 1, 2)
    still = torch.tensor([1.0, 0.0]).expand_as(slot)
    n = len(angles) - 1
    read = [torch.tensor([[[0.75, 0.25]]])] * n
    both = torch.stack([slot, still], dim=1).unsqueeze(1)  # (N + 1, L, S, D)
    return Trace([torch.tensor([7])] * n, both, torch.full((n, 1, 2), 0.5), [torch.ones(1, 2, 1)] * n, read)


def test_a_slot_is_written_when_it_turns_by_more_than_26_degrees():
    assert slots.written(turning(0.0, 25.0, 0.0, 27.0, 54.0, 54.0))[:, 0, 0].tolist() == [False, False, True, True, False]


def test_use_of_slots_by_hand():
    """Written by events 1, 3 and 5 of 6: two contents lived 2 events and ended; all could be read but the last."""
    first, second = use_rows([turning(0.0, 0.0, 90.0, 90.0, 0.0, 0.0, 90.0)])
    assert first == {"layer": 0, "slot": 0, "write_frequency": 0.5, "lifetime": 2.0, "reuse": 2.0, "read": 0.75,
                     "read_entropy": pytest.approx(0.8113, abs=1e-4), "gate": 0.5, "contents": 3}
    assert second == {**first, "slot": 1, "write_frequency": 0.0, "lifetime": None, "reuse": None, "read": 0.25, "contents": 0}


def test_what_the_last_event_wrote_has_not_lived_yet():
    trace = turning(0.0, 90.0, 90.0, 0.0)
    assert [(c.lived, c.ended) for c in contents(trace)] == [(2, True), (0, False)]
    assert [(row["of"], row["age"], row["alive"], row["at_risk"]) for row in content_rows([trace])] == [("content of layer 0", 2, 0.0, 1)]


def test_read_entropy_is_nothing_from_one_slot_and_all_bits_from_all_alike():
    read = torch.stack([torch.eye(4)[:3], torch.full((3, 4), 0.25)])  # (L, T, S)
    trace = Trace([torch.ones(3)], torch.ones(2, 2, 4, 2), None, [], [read])
    assert read_entropy(trace).tolist() == [[0.0, 2.0]]


def test_events_are_sorted_by_what_they_do():
    events = Event("The hat is red.", "I see."), Event("What colour is the hat?", "The hat is red."), Event("Hello!", "Hello!")
    dialogue = Dialogue(events, (Probe(turn=1, kind="recall", attribute="colour", entity="hat", value="red"),))
    rows = {row["event"]: row for row in event_rows([turning(0.0, 90.0, 90.0, 100.0)], [dialogue])}
    assert [rows[kind]["written"] for kind in ("tells", "asks", "chats")] == [1.0, 0.0, 0.0]
    assert rows["tells"]["cosine"] == pytest.approx(0.5) and all(row["n"] == 1 and row["gate"] == 0.5 for row in rows.values())


# ------------------------------------------------------------------------------------------------ survival
def test_kaplan_meier_by_hand():
    """Deaths at 1, 3 and 3, censored at 2 and 5: S = 4/5, then 4/5 x 1/3. Greenwood's interval for the first step."""
    rows = {row["age"]: row for row in survival_rows([(1, True), (2, False), (3, True), (3, True), (5, False)])}
    assert [rows[age]["alive"] for age in (1, 2, 3, 5)] == pytest.approx([0.8, 0.8, 0.8 / 3, 0.8 / 3])
    assert [(rows[age]["at_risk"], rows[age]["ended"], rows[age]["censored"]) for age in (1, 2, 3, 5)] == [
        (5, 1, 0), (4, 0, 1), (3, 2, 0), (1, 0, 1)]
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.2038, 0.9692), abs=1e-4)
    assert survival_rows([]) == []


def test_without_a_death_all_live_and_numbers_stay_numbers():
    rows = survival_rows([(1, False), (2, False)]) + survival_rows([(1, True), (1, True)])
    assert [row["alive"] for row in rows] == [1.0, 1.0, 0.0]
    assert all(row["low"] <= row["alive"] <= row["high"] for row in rows)


@pytest.mark.parametrize("right, first, last", [
    ([True, True], (2, False), (2, False)), ([False], (1, True), (1, True)), ([False, True], (1, True), (2, False)),
    ([True, False, True, False, False], (2, True), (4, True)), ([False, False], (1, True), (1, True)),
], ids=str)
def test_answered_ends_with_the_first_wrong_answer_and_held_with_the_last_right_one(right, first, last):
    assert (answered(right), held(right)) == (first, last)


STORY = Dialogue(
    (Event("The hat is red.", "I see."), Event("Ben has a pony.", "I see."), Event("Now the hat is blue.", "I see."),
     Event("What pet does Ben have?", "Ben has a pony."), Event("Hello!", "Hello, how are you?")),
    (Probe(turn=3, kind="recall", attribute="pet", entity="Ben", value="pony", distance=2),))


class Knows(PerfectMemory):
    """Answers its dialogue by heart, and what is asked on the side as `asked` says: {after which event: {question: answer}}."""

    def __init__(self, dialogue, asked):
        super().__init__([dialogue])
        history = ()
        for n, event in enumerate(dialogue.events):
            history += tuple(encode_event(TOKENIZER, event.query, event.answer))
            for question, answer in asked.get(n, {}).items():
                whole = tuple(encode_event(TOKENIZER, question, answer))
                query = tuple(encode_event(TOKENIZER, question, "")[:-1])
                self.known.setdefault((history, query), whole[len(query):])


def test_facts_are_censored_when_overwritten_when_asked_and_at_the_end():
    hat, pet = "What colour is the hat?", "What pet does Ben have?"
    model = Knows(STORY, {0: {hat: "The hat is red."}, 1: {hat: "The hat is blue.", pet: "Ben has a pony."},
                          2: {hat: "The hat is blue."}, 3: {hat: "I do not know."}, 4: {hat: "The hat is blue."}})
    lives = ask_facts(model, [STORY], TOKENIZER)
    assert lives == [
        [True, False],  # red: told by event 0, right after it, wrong after event 1, then overwritten by event 2
        [True, True],  # pony: told by event 1, asked by event 3, so asked on the side after events 1 and 2
        [True, False, True],  # blue: told by event 2, refused once, known when the dialogue ends
    ]
    assert [answered(right) for right in lives] == [(2, True), (2, False), (2, True)]
    assert [held(right) for right in lives] == [(2, True), (2, False), (3, False)]
    assert ask_facts(model, [STORY], TOKENIZER, memory_reset) == [[False] * 2, [False] * 2, [False] * 3]


def test_asking_on_the_side_leaves_no_trace():
    """Dialogues together and each alone: the questions to one are no events of another, nor of itself."""
    model, tokenizer = saved(None, "rxt")
    some = make_dialogues("easy", 2, seed=1)
    together = sorted(ask_facts(model, some, tokenizer))
    assert together == sorted(right for dialogue in some for right in ask_facts(model, [dialogue], tokenizer))


# ------------------------------------------------------------------------------------------------ probes
def test_told_facts_agree_with_the_probes():
    for dialogue in make_dialogues("base", 50, seed=5) + make_dialogues("overwrite", 30, seed=5):
        told = {}
        for n, event in enumerate(dialogue.events):
            told |= {(attribute, entity): (value, n) for attribute, entity, value in world.facts_told(event.query)}
            for probe in (p for p in dialogue.probes if p.turn == n):
                right = None if probe.kind == "unknown" else (probe.value, n - probe.distance)
                assert told.get((probe.attribute, probe.entity)) == right


def test_the_moment_is_the_last_with_one_such_fact_that_does_not_show_it():
    assert moments_of(STORY) == [(1, "colour", "red"), (4, "pet", "pony")]


@torch.no_grad()
def test_snapshots_are_the_memories_of_those_moments():
    model = model_of()
    found = snapshots(model, [STORY, DIALOGUES[0]], TOKENIZER)
    tokens, empty = events_of(STORY), model.init_state(1)
    stm = empty
    for event in tokens[:2]:
        stm = model.remember(event, stm)
    torch.testing.assert_close(found["colour"].slots[0], stm.flatten(1))
    torch.testing.assert_close(found["colour"].reset[0], model.remember(tokens[1], empty).flatten(1))
    assert found["colour"].values[0] == world.COLOURS.index("red") and found["pet"].values[0] == world.PETS.index("pony")


@pytest.mark.parametrize("n", [40, 400])
def test_a_linear_probe_finds_what_is_linear_and_agrees_with_least_squares(n):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n,), generator=generator)
    x = F.one_hot(y, 3).float() @ torch.randn(3, 50, generator=generator) + 0.1 * torch.randn(n, 50, generator=generator)
    guess = linear_probe(x[: n // 2], y[: n // 2], 3)
    assert (guess(x[n // 2 :]) == y[n // 2 :]).all(), "through either Gram matrix"
    centred = (x - x.mean(0)).double() / (x - x.mean(0)).pow(2).mean().sqrt()
    rows = torch.cat([centred, (0.01 * n) ** 0.5 * torch.eye(50, dtype=torch.double)])  # ridge as rows of zeros to be fitted
    target = F.one_hot(y, 3).double()
    weight = torch.linalg.lstsq(rows, torch.cat([target - target.mean(0), torch.zeros(50, 3)])).solution
    assert torch.equal(linear_probe(x, y, 3)(x), (centred @ weight + target.mean(0)).argmax(-1))


def test_controls_take_the_fact_away():
    """Slots that hold the colour, and a reset memory that does not."""
    generator = torch.Generator().manual_seed(0)

    def made(n):
        values = torch.randint(0, 8, (n,), generator=generator)
        noise = torch.randn(2, n, 1, 30, generator=generator)
        return {"colour": Snapshots(noise[0] + 5 * F.one_hot(values, 30).unsqueeze(1), noise[1], values)}

    rows = {row["arm"]: row for row in probe_rows(made(300), made(200))}
    assert list(rows) == ["slots", "shuffled_labels", "memory_reset"]
    assert rows["slots"]["accuracy"] > 0.9 and all(rows[arm]["accuracy"] < 0.25 for arm in ("shuffled_labels", "memory_reset"))
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["n"] == 200 and row["options"] == 8 for row in rows.values())


# ------------------------------------------------------------------------------------------------ the command
def test_every_table_comes_from_the_shipped_model():
    model, tokenizer = saved(None, "rxt")
    tables = dict(slot_tables(model, tokenizer, dialogues=2, probed=24))
    assert list(tables) == list(slots.TABLES)
    assert list(dict.fromkeys((row["of"], row["arm"]) for row in tables["survival"] if row["of"].startswith("fact"))) == [
        (of, arm) for arm in ("memory_on", "memory_reset") for of in ("fact answered", "fact held")]
    c = model.config
    assert len(tables["trace"]) == 9 * c.n_layers * c.n_slots and len(tables["use"]) == c.n_layers * c.n_slots
    first = make_dialogues("base", 1, split="test_iid", seed=1000)[0]
    assert tables["trace"] == trace_rows(record(model, own_events(model, first, tokenizer)), tokenizer)
    row = tables["trace"][0]
    assert len(row["tokens"]) == len(row["write"]) == len(row["read"]) and row["tokens"][:2] == ["[BOS]", "[Q]"]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_the_table_asked_for(as_json):
    done = CliRunner().invoke(app, ["slots", "--only", "trace", *["--json"] * as_json])
    assert done.exit_code == 0
    if as_json:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert {row["table"] for row in rows} == {"trace"} and list(rows[0])[1:4] == ["event", "layer", "slot"]
    else:
        assert "cosine" in done.stdout and "tokens" not in done.stdout, "maps are for figures"


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="'maps' is not known; choose from trace, events"):
        dict(slot_tables(None, None, only=["maps"]))
    with pytest.raises(ValueError, match="dialogues=0 must be at least 1"):
        dict(slot_tables(None, None, dialogues=0))
