"""The checks beside the exercises of the chapters on data, pre-training and tuning: each known mistake gets its own sentence."""

import random
from collections import Counter

import pytest
import torch
from test_chapters import cells, published, run, verdict

from rxt_lite.config import BOS, EOS, MASK, PAD, A, Q
from rxt_lite.data import World, make_dialogues


# -------------------------------------------------------------------------------------------- Dialogues and stories
@pytest.fixture(scope="module")
def making():
    return run([cells("dialogues-and-stories")["checks"]], torch=torch, BOS=BOS, EOS=EOS, PAD=PAD, A=A, Q=Q)


@pytest.mark.parametrize(
    "T, targets, says",
    [
        (None, 5, "no answer yet"),
        (13, 5, "right"),
        (9, 5, "without the frame"),
        (12, 5, "one mark is missing"),
        (11, 5, "two marks are missing"),
        (14, 5, "T is not right"),
        (13, 4, "has to say [EOS]"),
        (13, 6, "[A] is given"),
        (13, 9, "written by the user"),
        (13, 12, "a language model's targets"),
        (13, 13, "those are all tokens"),
        (13, 1, "the targets are not right"),
    ],
)
def test_check_of_the_count(making, capsys, T, targets, says):
    said = verdict(capsys, making["check_count"], T, targets)
    assert says in said and (says == "right") == (said == "right\n")


def behind(tokens):
    return (tokens == A).cumsum(-1) > 0


def mask(tokens):
    return behind(tokens) & (tokens != A) & (tokens != PAD)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda tokens: None, "no answer yet"),
        (mask, "right"),
        (lambda tokens: mask(tokens)[0], "the shape of the tokens"),
        (lambda tokens: mask(tokens).long(), "True and False"),
        (lambda tokens: behind(tokens) & (tokens != PAD), "[A] is given"),
        (lambda tokens: behind(tokens) & (tokens != A), "padding is marked"),
        (behind, "[A] and the padding"),
        (lambda tokens: mask(tokens) & (tokens != EOS), "[EOS] is missing"),
        (lambda tokens: ~behind(tokens) & (tokens != PAD), "upside down"),
        (lambda tokens: tokens != PAD, "all tokens but the padding"),
        (lambda tokens: mask(tokens).roll(-1, -1), "one place too early"),
        (lambda tokens: tokens == EOS, "not right"),
    ],
)
def test_check_of_the_answer_mask(making, capsys, answer, says):
    assert says in verdict(capsys, making["check_answer_mask"], answer)


def shares(of=lambda p: p["writes"] == 0, among=lambda p, q: p["turn"] == q["turn"], keep=lambda share: True):
    def unknown_by_turn(probes):
        found = {}
        for p in probes:
            marked = [q for q in probes if q["turn"] == p["turn"] and of(q)]
            found[p["turn"]] = len(marked) / max(1, len([q for q in probes if among(p, q)]))
        return {turn: share for turn, share in found.items() if keep(share)}

    return unknown_by_turn


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda probes: None, "no answer yet"),
        (shares(), "right"),
        (lambda probes: list(shares()(probes).items()), "a dictionary"),
        (shares(of=lambda p: p["writes"] > 0), "those are the told ones"),
        (lambda probes: {t: Counter(p["turn"] for p in probes if not p["writes"])[t] for t in (1, 2, 4)}, "those are counts"),
        (shares(among=lambda p, q: True), "divided by all questions"),
        (shares(among=lambda p, q: q["writes"] == 0), "P(turn | unknown)"),
        (shares(keep=bool), "it is not left out"),
        (shares(of=lambda p: p["writes"] != 1), "written twice"),
        (lambda probes: {1: 0.5}, "not right"),
    ],
)
def test_check_of_the_shortcut(making, capsys, answer, says):
    assert says in verdict(capsys, making["check_by_turn"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda people, pets: None, "no answer yet"),
        (lambda people, pets: {(p, pets[i % len(pets)]) for i, p in enumerate(people)}, "right"),
        (lambda people, pets: set(), "nothing is kept"),
        (lambda people, pets: {(i, i % 10) for i in range(20)}, "pairs (person, pet)"),
        (lambda people, pets: {(p, pets[0]) for p in people}, "kept from everybody"),
        (lambda people, pets: {(people[0], pet) for pet in pets}, "kept from all pets"),
        (lambda people, pets: {(people[0], pets[0])}, "one person loses 0"),
        (lambda people, pets: {(p, pets[i % 3]) for i, p in enumerate(people)}, "the rare one is a hint"),
        (lambda people, pets: {(p, pet) for i, p in enumerate(people) for j, pet in enumerate(pets) if (i + j) % 2}, "more than a quarter"),
        (lambda people, pets: {(p, random.SystemRandom().choice(pets)) for p in people}, "other pairs"),
    ],
)
def test_check_of_what_is_kept_back(making, capsys, answer, says):
    assert says in verdict(capsys, making["check_keep_back"], answer)


def test_published_solutions_of_the_dialogues_pass(making, capsys):
    for function, check in (("answer_mask", "check_answer_mask"), ("unknown_by_turn", "check_by_turn"), ("keep_back", "check_keep_back")):
        solved = run([published("dialogues-and-stories", function)], A=A, PAD=PAD)
        assert verdict(capsys, making[check], solved[function]) == "right\n"
    assert "T_of_event, n_targets = 13, 5" in cells("dialogues-and-stories")["solution-1"]


def test_what_the_solutions_say_of_other_worlds():
    """Half of the questions are unknown in every turn; few stored facts make it likelier, the attribute does not."""
    half = [p for d in make_dialogues(World(unknowns=0.5), 500) for p in d.probes]
    later = [[p.kind == "unknown" for p in half if p.turn == turn] for turn in range(4, 9)]
    assert all(0.4 < sum(marks) / len(marks) < 0.6 for marks in later)

    probes = [p for d in make_dialogues("base", 1500) for p in d.probes]

    def unknown(where):
        marks = [p.kind == "unknown" for p in probes if where(p)]
        return sum(marks) / len(marks)

    assert unknown(lambda p: p.stored <= 2) > 2 * unknown(lambda p: p.stored >= 5)
    of_attribute = [unknown(lambda p, a=a: p.attribute == a) for a in {p.attribute for p in probes}]
    assert max(of_attribute) - min(of_attribute) < 0.06


# ------------------------------------------------------------------------------------------------ Joint pre-training
@pytest.fixture(scope="module")
def pretraining():
    return run([cells("joint-pretraining")["checks"]], torch=torch, BOS=BOS, PAD=PAD, MASK=MASK)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (0.45, "right"),
        (3, "what reading nothing costs"),
        (2.55, "the blanks are what is left"),
        (0.15, "that is the mask share"),
        (0, "not quite nothing"),
        (1.2, "not 8 bits"),
        (0.312, "in bits, please"),
        (7, "not right"),
    ],
)
def test_check_of_the_bits(pretraining, capsys, answer, says):
    assert says in verdict(capsys, pretraining["check_bits"], answer)


def blanks(kept=(PAD, BOS), compare=torch.lt, seed=None, change=lambda share: share):
    def make_blanks(tokens, share):
        drawn = torch.rand(tokens.shape, generator=None if seed is None else torch.Generator().manual_seed(seed))
        blanked = compare(drawn, change(share))
        for mark in kept:
            blanked = blanked & (tokens != mark)
        return tokens.masked_fill(blanked, MASK), blanked

    return make_blanks


def blanks_in_place(tokens, share):
    with_blanks, blanked = blanks()(tokens, share)
    tokens[blanked] = MASK
    return tokens, blanked


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda tokens, share: None, "no answer yet"),
        (blanks(), "right"),
        (lambda tokens, share: blanks()(tokens, share)[0], "two things come back"),
        (blanks_in_place, "the caller's tokens were changed"),
        (lambda tokens, share: (blanks()(tokens, share)[0], blanks()(tokens, share)[1].float()), "True or False for each token"),
        (lambda tokens, share: (tokens, blanks()(tokens, share)[1]), "the two do not fit"),
        (blanks(kept=(BOS,)), "padding became a blank"),
        (blanks(kept=(PAD,)), "[BOS] became a blank"),
        (blanks(change=lambda share: 0.5 + share / 2), "a share of 0 makes no blanks"),
        (blanks(change=lambda share: share / 2), "a share of 1 blanks every token"),
        (blanks(seed=3), "the same blanks at every call"),
        (blanks(change=lambda share: 0.75 if 0 < share < 1 else share), "blanked what should stay"),
        (blanks(change=lambda share: share**3), "a share of 0.25 made"),
    ],
)
def test_check_of_the_blanks(pretraining, capsys, answer, says):
    assert says in verdict(capsys, pretraining["check_make_blanks"], answer)


def shift(axis, back=False):
    def before(encoded):
        n = encoded.shape[axis]
        nothing = torch.zeros_like(encoded.narrow(axis, 0, 1))
        return torch.cat([encoded.narrow(axis, 1, n - 1), nothing] if back else [nothing, encoded.narrow(axis, 0, n - 1)], axis)

    return before


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda encoded: None, "no answer yet"),
        (shift(2), "right"),
        (lambda encoded: encoded[:, :, :-1], "the shape stays"),
        (shift(2, back=True), "the event AFTER"),
        (lambda encoded: encoded.roll(1, 2), "roll goes round"),
        (lambda encoded: encoded, "nothing was shifted"),
        (shift(3), "you shifted the tokens"),
        (shift(1), "you shifted the conversations"),
        (shift(0), "you shifted the layers"),
        (lambda encoded: 2 * encoded, "not right"),
    ],
)
def test_check_of_the_event_before(pretraining, capsys, answer, says):
    assert says in verdict(capsys, pretraining["check_before"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda nats, floor: None, "no answer yet"),
        (lambda nats, floor: nats["itself"] < floor - 0.2, "right"),
        (lambda nats, floor: nats["itself"], "True or False"),
        (lambda nats, floor: nats["itself"] >= floor - 0.2, "upside down"),
        (lambda nats, floor: nats["itself"] > 3 or nats["itself"] < 1, "a bad model is no leak"),
        (lambda nats, floor: nats["itself"] < 3, "that is no leak"),
        (lambda nats, floor: False, "that one was looked up"),
    ],
)
def test_check_of_the_alarm(pretraining, capsys, answer, says):
    assert says in verdict(capsys, pretraining["check_verdict"], answer)


def test_published_solutions_of_the_pretraining_pass(pretraining, capsys):
    for function, check in (("make_blanks", "check_make_blanks"), ("before", "check_before"), ("verdict", "check_verdict")):
        solved = run([published("joint-pretraining", function)], torch=torch, BOS=BOS, PAD=PAD, MASK=MASK)
        assert verdict(capsys, pretraining[check], solved[function]) == "right\n"
    assert "bits_left = 0.45" in cells("joint-pretraining")["solution-1"]


# ------------------------------------------------------------------------------------------------ Interaction tuning
@pytest.fixture(scope="module")
def tuning():
    return run([cells("interaction-tuning")["checks"]], torch=torch, EOS=EOS, PAD=PAD)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        (7 / 16, "right"),
        (0.5, "the two do not add up"),
        (9 / 16, "that it still goes on"),
        (1 / 16, "one is enough"),
        (1 / 4, "that is one try"),
        (3 / 16, "exactly at the second"),
        (4, "on average"),
        (0.9, "not right"),
    ],
)
def test_check_of_when_it_is_over(tuning, capsys, answer, says):
    assert says in verdict(capsys, tuning["check_over"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda answers: None, "no answer yet"),
        (lambda answers: (answers == EOS).any(-1).float().mean(), "right"),
        (lambda answers: (answers == EOS).sum(), "that is a count"),
        (lambda answers: (answers == PAD).any(-1).float().mean(), "the very last place"),
        (lambda answers: (answers != EOS).all(-1).float().mean(), "those that go on"),
        (lambda answers: (answers[:, -1] == EOS).float().mean(), "only the last place"),
        (lambda answers: (answers == EOS).float().mean(), "divided by tokens"),
        (lambda answers: 3 / 16, "divided by tokens"),
        (lambda answers: 1.0, "every answer counted"),
        (lambda answers: 0.0, "none counted"),
        (lambda answers: 0.3, "is not right"),
    ],
)
def test_check_of_how_many_end(tuning, capsys, answer, says):
    assert says in verdict(capsys, tuning["check_share_ended"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda nats, is_target: None, "no answer yet"),
        (lambda nats, is_target: nats[is_target].mean(), "right"),
        (lambda nats, is_target: nats[is_target].sum(), "that is the sum"),
        (lambda nats, is_target: (nats * is_target).mean(), "divided by all places"),
        (lambda nats, is_target: nats.mean(), "the padding among them"),
        (lambda nats, is_target: ((nats * is_target).sum(1) / is_target.sum(1)).mean(), "a mean of means"),
        (lambda nats, is_target: nats[~is_target].mean(), "you took the others"),
        (lambda nats, is_target: nats[is_target].sum() / len(nats), "divided by the events"),
        (lambda nats, is_target: 1.0, "is not right"),
    ],
)
def test_check_of_the_mean(tuning, capsys, answer, says):
    assert says in verdict(capsys, tuning["check_mean_over"], answer)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda mask: None, "no answer yet"),
        (lambda mask: torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1), "right"),
        (lambda mask: mask[..., 1:], "the shape stays"),
        (lambda mask: mask, "the mask itself"),
        (lambda mask: torch.cat([torch.zeros_like(mask[..., :1]), mask[..., :-1]], -1), "one place too late"),
        (lambda mask: ~mask, "do not count"),
        (lambda mask: mask.roll(-1, -1), "roll goes round"),
        (lambda mask: mask & False, "not right"),
    ],
)
def test_check_of_where_the_logits_stand(tuning, capsys, answer, says):
    assert says in verdict(capsys, tuning["check_move"], answer)


def test_published_solutions_of_the_tuning_pass(tuning, capsys):
    for function, check in (("share_ended", "check_share_ended"), ("mean_over_targets", "check_mean_over"), ("move", "check_move")):
        solved = run([published("interaction-tuning", function)], torch=torch, EOS=EOS)
        assert verdict(capsys, tuning[check], solved[function]) == "right\n"
    assert "over_after_two = 7 / 16" in cells("interaction-tuning")["solution-1"]


# -------------------------------------------------------------------------------------------- between two chapters
def test_tuning_begins_with_the_model_that_pretraining_has_left():
    """Else it is trained twice, or a run with other settings is in the folder."""
    first, second = cells("joint-pretraining"), cells("interaction-tuning")
    assert first["recipe"] == second["recipe"]
    shape = "config = replace(BOOK, d_model=64, d_ff=128, vocab_size=tokenizer.get_vocab_size())"
    assert shape in first["equal-code"] and shape in second["equal-code"]
    assert '"joint_lm"' in first["training"] and 'trained("joint_lm")' in second["pretrained-code"]


# -------------------------------------------------------------------------------------- equal to the library, or not
NEEDED = ("imports", "dialogue", "by-hand-code", "by-loop", "at-once-code", "loop-code", "class-code", "equal-code")


@pytest.mark.parametrize(
    "chapter, name, old, new",
    [
        ("dialogues-and-stories", "at-once-code", "(tokens != A) &", ""),
        ("joint-pretraining", "class-code", "encoded[:, :, :-1]], dim=2)", "encoded[:, :, 1:]], dim=2)"),
        ("joint-pretraining", "class-code", "is_target = flat[:, 1:] != PAD", "is_target = flat[:, 1:] >= PAD"),
        ("interaction-tuning", "class-code", '"answer": behind & (tokens != A)', '"answer": behind & (tokens != EOS)'),
    ],
)
def test_a_wrong_step_is_seen_where_book_and_library_are_compared(chapter, name, old, new, capsys):
    chapter = cells(chapter)
    assert chapter[name].count(old) == 1
    sources = {cell: chapter[cell].replace("PROFILE = profile(PROFILE)", "") for cell in NEEDED if cell in chapter}
    run(list(sources.values()))  # as it stands, it holds
    sources[name] = sources[name].replace(old, new)
    with pytest.raises((AssertionError, RuntimeError)):
        run(list(sources.values()))
