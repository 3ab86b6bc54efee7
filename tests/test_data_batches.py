"""Batches: what a model reads is what the dialogue says, and the answer is marked to the token."""
import pytest
import torch

from rxt_lite.config import BOS, EOS, PAD, A
from rxt_lite.data.batches import fits, make_batch
from rxt_lite.data.dialogues import Dialogue, Event, make_dialogues
from rxt_lite.data.tokenizer import decode, world_tokenizer


def test_a_batch_reads_back_as_its_dialogues():
    dialogues = make_dialogues("base", 6) + make_dialogues("easy", 2)
    batch = make_batch(dialogues, world_tokenizer(), max_event_len=32)
    assert batch.tokens.shape == batch.is_answer.shape == (8, 9, batch.tokens.shape[2]) and batch.tokens.shape[2] <= 32
    assert batch.tokens.dtype == torch.int64 and batch.is_answer.dtype == torch.bool
    for b, dialogue in enumerate(dialogues):
        for n, event in enumerate(dialogue.events):
            tokens, is_answer = batch.tokens[b, n], batch.is_answer[b, n]
            assert tokens[0] == BOS and tokens[is_answer][-1] == EOS
            assert decode(world_tokenizer(), tokens[is_answer]) == event.answer
            assert decode(world_tokenizer(), tokens[~is_answer]) == event.query
            assert tokens[is_answer.nonzero()[0] - 1] == A and not is_answer[tokens == PAD].any()


def test_missing_events_are_all_padding():
    batch = make_batch(make_dialogues("base", 1) + make_dialogues("easy", 1), world_tokenizer(), max_event_len=32)
    assert (batch.tokens[1, 5:] == PAD).all() and not batch.is_answer[1, 5:].any()
    assert (batch.tokens[1, :5] != PAD).any(dim=-1).all()


def test_a_row_does_not_depend_on_its_neighbours():
    one, two = make_dialogues("long", 1), make_dialogues("long", 2)
    alone, together = (make_batch(d, world_tokenizer(), max_event_len=32).tokens[0] for d in (one, two))
    T = min(alone.shape[1], together.shape[1])
    assert torch.equal(alone[:, :T], together[:, :T])


def test_a_batch_moves_as_a_whole():
    batch = make_batch(make_dialogues("easy", 2), world_tokenizer(), max_event_len=32).to("meta")
    assert batch.tokens.is_meta and batch.is_answer.is_meta


def test_a_long_event_is_named():
    dialogue = Dialogue((Event("Tell me about the hat " * 9, "No."),))
    with pytest.raises(ValueError, match=r"begins with 'Tell me about the hat.* has \d+ tokens.*max_event_len=16"):
        make_batch([dialogue], world_tokenizer(), max_event_len=16)
    assert not fits(dialogue, world_tokenizer(), 16) and fits(dialogue, world_tokenizer(), 128)


def test_nothing_makes_no_batch():
    with pytest.raises(ValueError, match="at least one dialogue"):
        make_batch([], world_tokenizer(), max_event_len=16)
    with pytest.raises(ValueError, match="at least one event"):
        Dialogue(())
