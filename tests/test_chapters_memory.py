"""The checks beside the exercises of the chapters on the memory: each known mistake gets its own sentence."""

import math
from dataclasses import replace

import pytest
import torch
from test_chapters import cells, published, run, verdict

from rxt_lite.config import BOOK, MINI_100M, NANO_12M, PAD
from rxt_lite.models import RxT


# ------------------------------------------------------------------------------------------------ Short-term memory
@pytest.fixture(scope="module")
def kept():
    return run([cells("short-term-memory")["checks"]], torch=torch, BOOK=BOOK, NANO_12M=NANO_12M, MINI_100M=MINI_100M)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda c, users: None, "no answer yet"),
        (lambda c, users: 4 * c.n_layers * users * c.n_slots * c.d_model, "right"),
        (lambda c, users: c.n_layers * users * c.n_slots * c.d_model, "those are numbers"),
        (lambda c, users: 4 * users * c.n_slots * c.d_model, "that is one layer"),
        (lambda c, users: 4 * c.n_layers * users * c.d_model, "left out the slots"),
        (lambda c, users: 4 * c.n_layers * users * c.n_slots, "a vector of width D"),
        (lambda c, users: 4 * c.n_layers * c.n_slots * c.d_model, "that is one conversation"),
        (lambda c, users: 17, "17 is not right"),
    ],
)
def test_check_of_the_bytes(kept, capsys, answer, says):
    assert says in verdict(capsys, kept["check_bytes"], answer)


def forget(where, zeros=False, clone=True):
    """A wrong or right `forget_slot` that resets what `where(layer, slot)` points at."""

    def forget_slot(stm, start, layer, slot):
        stm = stm.clone() if clone else stm
        stm[where(layer, slot)] = 0 if zeros else start[where(layer, slot)]
        return stm

    return forget_slot


def into_the_start(stm, start, layer, slot):
    start[layer, :, slot] = stm[layer, :, slot]
    return start


ALL = slice(None)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda stm, start, layer, slot: None, "no answer yet"),
        (forget(lambda layer, slot: (layer, ALL, slot)), "right"),
        (forget(lambda layer, slot: (layer, ALL, slot), clone=False), "the caller's memory was changed"),
        (forget(lambda layer, slot: (ALL, ALL, slot)), "all layers lost this slot"),
        (forget(lambda layer, slot: (layer,)), "the whole layer is gone"),
        (forget(lambda layer, slot: (layer, slot)), "the second axis is the conversation"),
        (forget(lambda layer, slot: (layer, ALL, slot), zeros=True), "zeros are not the empty memory"),
        (lambda stm, start, layer, slot: stm, "nothing was forgotten"),
        (lambda stm, start, layer, slot: stm[layer], "a memory has the shape (2, 3, 4, 5)"),
        (lambda stm, start, layer, slot: stm + 1, "not right"),
        (into_the_start, "PyTorch refused to write"),
    ],
)
def test_check_of_the_forgotten_slot(kept, capsys, answer, says):
    assert says in verdict(capsys, kept["check_forget_slot"], answer)


class Stub:
    def keep(self, stm):
        pass

    def back(self):
        return None


class Undo:
    def __init__(self):
        self.past = []

    def keep(self, stm):
        self.past.append(stm)

    def back(self):
        return self.past.pop()


class OldestFirst(Undo):
    def back(self):
        return self.past.pop(0)


class Peeking(Undo):
    def back(self):
        return self.past[-1]


class Silent(Undo):
    def back(self):
        got = self.past.pop()
        return got if self.past else None


class CountsOneMore(Undo):
    def back(self):
        return self.past.pop() + 1


@pytest.mark.parametrize(
    "answer, says",
    [
        (Stub, "no answer yet"),
        (Undo, "right"),
        (OldestFirst, "the oldest first"),
        (Peeking, "must also forget what it gives back"),
        (Silent, "back() gave None"),
        (CountsOneMore, "expected the memories after 2, 1 and 0 events"),
    ],
)
def test_check_of_the_undo(kept, capsys, answer, says):
    assert says in verdict(capsys, kept["check_undo"], answer)


def test_published_solutions_of_the_short_term_memory_pass(kept, capsys):
    chapter = "short-term-memory"
    for function in ("bytes_of", "forget_slot"):
        check = {"bytes_of": "check_bytes", "forget_slot": "check_forget_slot"}[function]
        assert verdict(capsys, kept[check], run([published(chapter, function)])[function]) == "right\n"
    (undo,) = [block for block in cells(chapter)["solution-3"].split("```") if "class Undo" in block]
    assert verdict(capsys, kept["check_undo"], run([undo.removeprefix("python\n")])["Undo"]) == "right\n"


# ----------------------------------------------------------------------------------------------- Reading the memory
@pytest.fixture(scope="module")
def reading():
    chapter = cells("memory-cross-attention")
    turn, count = chapter["positions"].split("torch.manual_seed")[0], chapter["once-code"].split("\n\n\n")[0]
    names = {"torch": torch, "math": math, "replace": replace, "BOOK": BOOK, "NANO_12M": NANO_12M}
    return run([turn, count, chapter["checks"]], **names)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.67, 0.5), "right"),
        ((4, 3), "do not add up to 1"),
        ((0.5, 0.75), "this is token 1"),
        ((1.0, 1.5), "not twice that of token 1"),
        ((0.8, 0.6), "the empty slot has its share"),
        ((0.67, 0.0), "slot 2 has a share as well"),
        ((0.5, 0.67), "changed places"),
        ((9, 9), "not right"),
    ],
)
def test_check_of_what_token_3_reads(reading, capsys, answer, says):
    assert says in verdict(capsys, reading["check_by_hand"], answer)


def saved(c, Ta, *, layers=True, both=2, times=-1, full=False):
    width = c.d_model if full else c.heads("cross")[1] * c.d_head
    return (Ta + times) * (c.n_layers if layers else 1) * both * c.n_slots * c.d_model * width


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda c, Ta: None, "no answer yet"),
        (saved, "right"),
        (lambda c, Ta: saved(c, Ta, times=0), "T_a - 1 times"),
        (lambda c, Ta: saved(c, 2), "that is one pass"),
        (lambda c, Ta: saved(c, Ta, both=1), "two products, not one"),
        (lambda c, Ta: saved(c, Ta, layers=False), "that is one layer"),
        (lambda c, Ta: saved(c, Ta, full=True), "may be fewer than D"),
        (lambda c, Ta: saved(c, Ta, both=4), "those are operations"),
        (lambda c, Ta: 1, "1 is not right"),
    ],
)
def test_check_of_what_is_saved(reading, capsys, answer, says):
    assert says in verdict(capsys, reading["check_saved"], answer)


def reader(rotate, *, queries=True, keys=False, scale="root", axis=-1, mask=False, swap=False):
    def read(q, k, v, angle):
        q, k = rotate(q, angle) if queries else q, rotate(k, angle) if keys else k
        q, k = (k, q) if swap else (q, k)
        scores = q @ k.transpose(-1, -2) / {"root": math.sqrt(q.shape[-1]), "K": q.shape[-1], "none": 1}[scale]
        if mask:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        return scores.softmax(axis) @ v

    return read


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"keys": True}, "the keys were turned too"),
        ({"queries": False}, "nothing was turned"),
        ({"queries": False, "keys": True}, "instead of the queries"),
        ({"mask": True}, "there is a causal mask"),
        ({"scale": "none"}, "not divided by the root"),
        ({"scale": "K"}, "divided by K, not by its root"),
        ({"axis": -2}, "the softmax runs over the tokens"),
        ({"swap": True}, "changed places"),
        ({"scale": "K", "keys": True}, "not right"),
    ],
)
def test_check_of_the_reading(reading, capsys, how, says):
    assert says in verdict(capsys, reading["check_read"], reader(reading["rotate"], **how))


def test_check_of_the_reading_knows_no_answer_and_wrong_shapes(reading, capsys):
    assert "no answer yet" in verdict(capsys, reading["check_read"], lambda q, k, v, angle: None)
    assert "a row for each token" in verdict(capsys, reading["check_read"], lambda q, k, v, angle: q[0])


def test_published_solutions_of_the_reading_pass(reading, capsys):
    for function, check in (("saved", "check_saved"), ("read", "check_read")):
        solved = run([published("memory-cross-attention", function)], **{name: reading[name] for name in ("math", "rotate")})
        assert verdict(capsys, reading[check], solved[function]) == "right\n"


# ------------------------------------------------------------------------------------------------ The memory encoder
@pytest.fixture(scope="module")
def encoding():
    torch.manual_seed(0)
    names = {"torch": torch, "replace": replace, "BOOK": BOOK, "PAD": PAD, "model": RxT(BOOK).eval()}
    return run([cells("memory-encoder")["checks"]], **names)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((4, 2), "right"),
        ((5.33, 0), "looking back"),
        ((16, 8), "divide by the sum"),
        ((2, 4), "this is what Lucy"),
        ((2, 2), "belongs to Lucy"),
        ((8, 0), "not the best one alone"),
        ((1, 1), "not right"),
    ],
)
def test_check_of_what_has_takes_home(encoding, capsys, answer, says):
    assert says in verdict(capsys, encoding["check_has"], answer)


def columns(tokens):
    return (tokens != PAD)[:, None].expand(-1, tokens.shape[1], -1)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda tokens: None, "no answer yet"),
        (columns, "right"),
        (lambda tokens: columns(tokens).float(), "True and False"),
        (lambda tokens: tokens != PAD, "for every pair"),
        (lambda tokens: columns(tokens)[0], "the shape is (B, T, T)"),
        (lambda tokens: ~columns(tokens), "upside down"),
        (lambda tokens: torch.ones_like(columns(tokens)), "hides nothing"),
        (lambda tokens: columns(tokens).transpose(1, 2), "changed places"),
        (lambda tokens: columns(tokens).tril(), "that is causal"),
        (lambda tokens: columns(tokens) & columns(tokens).transpose(1, 2), "softmax over nothing"),
        (lambda tokens: columns(tokens).triu(), "not right"),
    ],
)
def test_check_of_who_may_look_at_whom(encoding, capsys, answer, says):
    assert says in verdict(capsys, encoding["check_mask"], answer)


def encoder_macs(c, T, *, layers=True, maps=4, looks=2, feed=3, head=False, factor=1):
    D = c.d_model
    one = maps * T * D * D + looks * T * T * D + feed * T * D * c.d_ff
    return factor * one * (c.n_layers if layers else 1) + (T * D * c.vocab_size if head else 0)


@pytest.mark.parametrize(
    "how, says",
    [
        ({}, "right"),
        ({"layers": False}, "that is one layer"),
        ({"factor": 2}, "those are operations"),
        ({"looks": 1}, "queries with keys, and shares with values"),
        ({"maps": 3}, "four maps"),
        ({"feed": 2}, "2 F wide"),
        ({"looks": 0}, "T times T of them"),
        ({"feed": 0}, "feed-forward part is missing"),
        ({"head": True}, "no head of V scores"),
        ({"maps": 9}, "is not right"),
    ],
)
def test_check_of_the_encoders_cost(encoding, capsys, how, says):
    assert says in verdict(capsys, encoding["check_count"], lambda c, T: encoder_macs(c, T, **how))


def test_check_of_the_encoders_cost_knows_no_answer(encoding, capsys):
    assert "no answer yet" in verdict(capsys, encoding["check_count"], lambda c, T: None)


def in_one_pass(model, events):
    return model.encode(events.flatten(0, 1)).unflatten(1, events.shape[:2])


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda model, events: None, "no answer yet"),
        (in_one_pass, "right"),
        (lambda model, events: in_one_pass(model, events)[-1], "that is one layer"),
        (lambda model, events: model.encode(events[:, 0]), "the shape is (L, B, N, T, D)"),
        (lambda model, events: [1], "yours is <class 'list'>"),
        (lambda model, events: model.encode(events.flatten(1, 2)).unflatten(2, events.shape[1:]), "they look at each other"),
        (lambda model, events: model.encode(events.flatten(0, 1)).unflatten(1, (2, 3)).transpose(1, 2), "changed places"),
        (lambda model, events: in_one_pass(model, events) + 1, "not right"),
    ],
)
def test_check_of_all_events_at_once(encoding, capsys, answer, says):
    assert says in verdict(capsys, encoding["check_encode_all"], answer)


def test_published_solutions_of_the_encoder_pass(encoding, capsys):
    for function, check in (("may_look", "check_mask"), ("count", "check_count"), ("encode_all", "check_encode_all")):
        solved = run([published("memory-encoder", function)], PAD=PAD)
        assert verdict(capsys, encoding[check], solved[function]) == "right\n"


# --------------------------------------------------------------------------------------------------- Residual gates
@pytest.fixture(scope="module")
def gates():
    chapter = cells("residual-gates")
    before = [chapter[name].split("\n\n\n")[0] for name in ("ways-code", "shares-code")]
    return run([*before, chapter["checks"]], torch=torch, math=math)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((0.5, 9), "right"),
        ((0.5, 3), "this is the sigmoid way"),
        ((1, 6), "after the first event"),
        ((2, 8), "without a gate"),
        ((0, 4), "this is replace"),
        ((4.5, 5), "changed places"),
        ((7, 7), "not right"),
    ],
)
def test_check_of_two_events(gates, capsys, answer, says):
    assert says in verdict(capsys, gates["check_two_events"], answer)


def share(gates, event):
    return (gates[event - 1] if event else 1.0) * math.prod(1 - g for g in gates[event:])


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda gates, event: None, "no answer yet"),
        (share, "right"),
        (lambda gates, event: gates[event - 1] if event else 1.0, "the events after it are missing"),
        (lambda gates, event: (gates[event - 1] if event else 1.0) * math.prod(gates[event:]), "leaves 1 - g, not g"),
        (lambda gates, event: share(gates, event) * (1 - gates[event - 1] if event else 1), "LATER events only"),
        (lambda gates, event: gates[event - 1] * math.prod(1 - g for g in gates[: event - 1]) if event else share(gates, 0), "not before"),
        (lambda gates, event: (gates[event - 1] if event else 1.0) * (1 - sum(gates[event:])), "one minus a sum"),
        (lambda gates, event: share(gates[::-1], event), "read them backwards"),
        (lambda gates, event: 0.123, "is not"),
    ],
)
def test_check_of_the_share(gates, capsys, answer, says):
    assert says in verdict(capsys, gates["check_share_of"], answer)


def linear(z=lambda old, new: (old + new).mean(-1), x=lambda z, W, b: (z @ W.T + b).sigmoid(), swap=False):
    def linear_gate(old, new, W, b):
        g = x(z(old, new), W, b).unsqueeze(-1)
        return (1 - g) * new + g * old if swap else g * new + (1 - g) * old

    return linear_gate


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda old, new, W, b: None, "no answer yet"),
        (linear(), "right"),
        (linear(x=lambda z, W, b: (z @ W + b).sigmoid()), "W is transposed"),
        (linear(x=lambda z, W, b: (z @ W.T).sigmoid()), "the bias is missing"),
        (linear(x=lambda z, W, b: (z @ W.T + b).softmax(-1)), "a softmax"),
        (linear(x=lambda z, W, b: z @ W.T + b), "the sigmoid is missing"),
        (linear(x=lambda z, W, b: (z @ W.T + b).tanh()), "not right"),
        (linear(z=lambda old, new: (old + new).sum(-1)), "not the sum"),
        (linear(z=lambda old, new: new.mean(-1)), "the new alone"),
        (linear(z=lambda old, new: old.mean(-1)), "the old alone"),
        (linear(swap=True), "changed places"),
        (lambda old, new, W, b: ((old + new).mean(-1) @ W.T + b).sigmoid(), "asks for the slots afterwards"),
        (lambda old, new, W, b: old[0], "the slots afterwards have the shape"),
    ],
)
def test_check_of_the_linear_gate(gates, capsys, answer, says):
    assert says in verdict(capsys, gates["check_linear_gate"], answer)


def logit(g):
    return math.log(g / (1 - g))


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda k: None, "no answer yet"),
        (lambda k: logit(1 - 0.5 ** (1 / k)), "right"),
        (lambda k: -logit(1 - 0.5 ** (1 / k)), "the sign"),
        (lambda k: 1 - 0.5 ** (1 / k), "the gate itself"),
        (lambda k: 0.5 ** (1 / k) if k > 1 else 0.0, "what one event leaves"),
        (lambda k: math.log(1 - 0.5 ** (1 / k)), "the inverse of the sigmoid"),
        (lambda k: logit(0.5 / k), "is a power"),
        (lambda k: 3.0, "gives a gate of 0.953"),
    ],
)
def test_check_of_the_bias(gates, capsys, answer, says):
    assert says in verdict(capsys, gates["check_bias_for"], answer)


def test_published_solutions_of_the_gates_pass(gates, capsys):
    for function, check in (("share_of", "check_share_of"), ("linear_gate", "check_linear_gate"), ("bias_for", "check_bias_for")):
        solved = run([published("residual-gates", function)], math=math, torch=torch)
        assert verdict(capsys, gates[check], solved[function]) == "right\n"
