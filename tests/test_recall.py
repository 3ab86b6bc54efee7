"""The recall experiment and its controls, on models whose right scores are known in advance."""

from dataclasses import replace

import pytest
import torch

from rxt_lite.config import EOS, PAD, TINY
from rxt_lite.data.dialogues import World, make_dialogues
from rxt_lite.data.tokenizer import encode_event, encode_query, world_tokenizer
from rxt_lite.experiments.intervals import wilson
from rxt_lite.experiments.recall import ARMS, marks_of, memory_on, memory_reset, recall_rows, run_freely, verdict_rows
from rxt_lite.experiments.stories import ratio_interval, score_answers, story_rows, unigram_bits
from rxt_lite.models import RxT
from rxt_lite.models.base import Cache, EventModel

TOKENIZER = world_tokenizer()
DIALOGUES = make_dialogues("base", 40, split="test_iid", seed=3)


class PerfectMemory(EventModel):
    """Keeps the transcript and looks the right answer up in the dialogue that begins with it; else says "no"."""

    def __init__(self, dialogues):
        super().__init__()
        self.config = replace(TINY, vocab_size=TOKENIZER.get_vocab_size(), max_len=512)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.known = {}
        for d in dialogues:
            history = ()
            for event in d.events:
                query = tuple(encode_query(TOKENIZER, event.query))
                whole = tuple(encode_event(TOKENIZER, event.query, event.answer))
                self.known[history, query] = whole[len(query):]
                history += whole

    def init_state(self, batch_size):
        return [()] * batch_size

    @staticmethod
    def select(state, rows):
        return [state[i] for i in rows]

    def remember(self, tokens, state):
        return [history + tuple(t for t in row if t != PAD) for history, row in zip(state, tokens.tolist())]

    def open(self, state, capacity):
        cache = Cache(self.config, len(state), capacity, self.weight)
        cache.kept = {"history": state, "read": [()] * len(state)}
        return cache

    def extend(self, tokens, cache):
        kept = cache.kept
        logits = torch.zeros(*tokens.shape, self.config.vocab_size)
        for b, row in enumerate(tokens.tolist()):
            for t, token in enumerate(row):
                kept["read"][b] += (token,) if token != PAD else ()
                read = kept["read"][b]
                for n in range(len(read), 0, -1):
                    answer = self.known.get((kept["history"][b], read[:n]))
                    if answer and answer[: len(read) - n] == read[n:] and len(read) - n < len(answer):
                        logits[b, t, answer[len(read) - n]] = 1.0
                        break
                else:
                    logits[b, t, EOS] = 1.0
        return logits


def by_arm(rows):
    return {arm: [r for r in rows if r["arm"] == arm] for arm in dict.fromkeys(r["arm"] for r in rows)}


def test_a_perfect_memory_scores_one_and_every_control_takes_it_away():
    model = PerfectMemory(DIALOGUES)
    rows = by_arm(recall_rows(model, model, DIALOGUES, TOKENIZER, seed=7, batch_size=16))
    assert list(rows) == ["memory_on", "memory_reset", "memory_swapped", "last_event_only", "full_history", "chance"]
    assert all(r["recall"] == 1.0 for arm in ("memory_on", "full_history") for r in rows[arm])
    assert all(r["recall"] == 0.0 for arm in ("memory_reset", "memory_swapped") for r in rows[arm])
    assert all(set(r) == {"arm", "seen", "recall", "low", "high", "n", "seed"} and r["seed"] == 7 for of in rows.values() for r in of)
    assert all(r["low"] <= r["recall"] <= r["high"] for of in rows.values() for r in of)
    counts = {arm: [(r["seen"], r["n"]) for r in of] for arm, of in rows.items()}
    assert all(c == counts["memory_on"] for c in counts.values()), "every arm answers the same questions"
    assert sum(r["n"] for r in rows["chance"]) == sum(p.kind == "recall" for d in DIALOGUES for p in d.probes)
    assert all(1 / 24 <= r["recall"] <= 1 / 6 for r in rows["chance"])


def test_recall_can_be_counted_against_the_turn_of_writing_and_the_facts_stored():
    hard = make_dialogues("hard", 60, split="test_iid", seed=3)
    model = PerfectMemory(hard)
    probes = [p for d in hard for p in d.probes]
    for by, wanted in (("written", {p.turn - p.distance for p in probes}), ("stored", {p.stored for p in probes})):
        rows = by_arm(recall_rows(model, None, hard, TOKENIZER, seed=0, by=by))
        assert all({r[by] for r in of} == wanted and sum(r["n"] for r in of) == len(probes) for of in rows.values())
        assert all(r["recall"] == 1.0 for r in rows["memory_on"])
    with pytest.raises(ValueError, match="'age'.*seen, written, stored"):
        recall_rows(model, None, hard, TOKENIZER, seed=0, by="age")


def test_verdicts_tell_a_refusal_of_what_was_told_from_one_of_what_was_not():
    tests = DIALOGUES
    marks = marks_of(PerfectMemory(tests), None, tests, TOKENIZER, arms=(memory_on, memory_reset))
    rows = {(r["arm"], r["question"], r["verdict"]): r for r in verdict_rows(marks, seed=4)}
    assert all(rows["memory_on", question, "right"]["share"] == 1 for question in ("told", "changed", "unknown"))
    assert rows["memory_reset", "told", "right"]["share"] < 0.1
    probes = [p for d in tests for p in d.probes]
    assert {q: rows["memory_on", q, "right"]["n"] for q in ("told", "changed", "unknown")} == {
        "told": sum(p.writes == 1 for p in probes), "changed": sum(p.writes == 2 for p in probes),
        "unknown": sum(p.kind == "unknown" for p in probes)}
    assert {r["seed"] for r in rows.values()} == {4}


def test_last_event_only_reaches_one_event_back():
    """With a question in the second event of two, one event is the whole history."""
    short = make_dialogues(World(turns=2, probes=1, overwrites=0), 20)
    model = PerfectMemory(short)
    rows = by_arm(recall_rows(model, None, short, TOKENIZER, seed=0))
    assert "full_history" not in rows
    assert {r["seen"]: r["recall"] for r in rows["last_event_only"]} == {1: 1.0}


@torch.no_grad()
def test_running_freely_is_each_conversation_alone_and_feeds_own_answers():
    torch.manual_seed(0)
    model = RxT(replace(TINY, vocab_size=TOKENIZER.get_vocab_size())).eval()
    for arm in ARMS[:1] + ARMS[3:]:
        together = run_freely(model, DIALOGUES[:5], TOKENIZER, arm)
        assert together == [run_freely(model, [d], TOKENIZER, arm)[0] for d in DIALOGUES[:5]]


def test_dialogues_of_unequal_length_are_refused():
    mixed = [*make_dialogues("base", 1), *make_dialogues("easy", 1)]
    with pytest.raises(ValueError, match=r"\[5, 9\] events"):
        run_freely(PerfectMemory([]), mixed, TOKENIZER)


def test_wilson_interval_agrees_with_published_values():
    low, high = wilson(8, 10)  # Wilson score interval for 8 of 10, two-sided 95 %
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0 and wilson(0, 0) == (0.0, 1.0)


# --- real stories ----------------------------------------------------------------------------


@torch.no_grad()
def test_bits_are_those_of_the_loss_and_a_reset_memory_changes_them():
    from rxt_lite.data.batches import make_batch
    from rxt_lite.training.losses import answer_loss, whole_answers_right

    torch.manual_seed(0)
    model = RxT(replace(TINY, vocab_size=TOKENIZER.get_vocab_size())).eval()
    mixed = [*DIALOGUES[:3], *make_dialogues("easy", 2)]
    (bits, right), (reset, _) = score_answers(model, mixed, TOKENIZER, batch_size=2), score_answers(model, mixed, TOKENIZER, memory_reset)
    assert [len(b) for b in bits] == [9, 9, 9, 5, 5]
    batch = make_batch(mixed, TOKENIZER, max_event_len=48)
    assert right == [of[: len(d.events)] for of, d in zip(whole_answers_right(model, batch).tolist(), mixed)]
    n = int(batch.is_answer.sum())
    assert sum(map(sum, bits)) == pytest.approx(answer_loss(model, batch).item() * n / 0.6931471805599453, rel=1e-4)
    assert all(b[0] == pytest.approx(r[0], rel=1e-5) and b[1:] != r[1:] for b, r in zip(bits, reset))


def test_unigram_bits_are_counted_by_hand():
    bits = unigram_bits(DIALOGUES[:1], DIALOGUES[:1], TOKENIZER)
    assert len(bits[0]) == 9 and all(b > 0 for b in bits[0])
    rows = story_rows(RxT(replace(TINY, vocab_size=TOKENIZER.get_vocab_size())).eval(), DIALOGUES, make_stories(), TOKENIZER, seed=1)
    values = {(r["arm"], r["turns"]): r["bits_per_byte"] for r in rows}
    assert values["memory_gain", "next"] == pytest.approx(values["memory_reset", "next"] - values["memory_on", "next"])


def make_stories():
    from rxt_lite.data.stories import story_to_dialogue

    text = "Once upon a time there was a dog named Spot. He ran far. He saw a cat. " * 3 + "The end came {n}."
    return [story_to_dialogue(text.format(n=n), max_words=12) for n in ("soon", "late", "never")]


def test_the_interval_of_a_ratio_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        size = torch.randint(50, 200, (60,), generator=generator)
        bits = size * (2.0 + 0.3 * torch.randn(60, generator=generator))
        mean, half = ratio_interval(bits.tolist(), size.tolist())
        hits += abs(mean - 2.0) <= half
    assert 0.90 < hits / 400 < 0.99
