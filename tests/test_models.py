"""The contract, once, for every model of the book; then what is special about each."""

import copy
from dataclasses import fields, replace

import pytest
import torch

from rxt_lite.config import EOS, MEMORY_ATTENTIONS, PAD, PAPER, TINY
from rxt_lite.models import MODELS, RxT
from rxt_lite.models.base import EventModel, join, pack
from rxt_lite.models.generate import converse, generate, sample, stream

CONFIG = replace(TINY, max_len=96)  # a transcript fits too
ALL_MODELS = list(MODELS.values())
each_model = pytest.mark.parametrize("make", ALL_MODELS, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def ragged(B=3, N=5, T=11):
    """Events of unequal lengths; one dialogue is shorter than the others."""
    events = torch.randint(7, 256, (B, N, T))
    events[0, :, 7:] = events[1, 2, 4:] = events[2, 1, 9:] = PAD
    events[2, 3:] = PAD
    return events


# --- the contract ----------------------------------------------------------------------------


@each_model
@torch.no_grad()
def test_answering_reads_the_state_and_leaves_it_alone(make):
    model, tokens = make(CONFIG).eval(), torch.arange(7, 13).view(1, 6)
    empty = model.init_state(batch_size=1)
    before = copy.deepcopy(empty)

    from_empty = model(tokens, empty)
    full = model.remember(tokens, empty)
    from_full = model(tokens, full)

    assert from_empty.shape == (1, 6, CONFIG.vocab_size)
    assert not torch.allclose(from_empty, from_full), "remember() had no effect on the answer"
    assert torch.equal(empty, before)


@each_model
@torch.no_grad()
def test_one_event_at_a_time_equals_all_at_once(make):
    model, events = make(CONFIG).eval(), ragged()
    at_once, loop = model.forward_dialogue(events), EventModel.forward_dialogue(model, events)
    real = events != PAD
    torch.testing.assert_close(at_once[real], loop[real], atol=1e-5, rtol=1e-5)
    model.embedding.weight[7:] += 0.01  # a parity test must be able to fail
    assert not torch.allclose(model.forward_dialogue(events)[real], loop[real], atol=1e-5)


@each_model
@torch.no_grad()
def test_padding_changes_nothing(make):
    model, events = make(CONFIG).eval(), ragged()
    wide = torch.nn.functional.pad(events, (0, 6, 0, 2), value=PAD)
    real = events != PAD
    torch.testing.assert_close(model.forward_dialogue(events)[real], model.forward_dialogue(wide)[:, :5, :11][real], atol=1e-5, rtol=1e-5)

    state = model.remember(events[:, 0], model.init_state(3))
    after = model.remember(events[:, 3], state)  # the third conversation says nothing here
    silent = torch.tensor([2])
    assert torch.equal(model.select(state, silent), model.select(after, silent)[..., : state.shape[-1]])


@each_model
@torch.no_grad()
def test_two_conversations_in_one_batch_never_touch(make):
    model, events = make(CONFIG).eval(), ragged()
    real = events != PAD
    together = model.forward_dialogue(events)
    for row in range(3):
        alone = model.forward_dialogue(events[row : row + 1])[0]
        torch.testing.assert_close(together[row][real[row]], alone[real[row]], atol=1e-5, rtol=1e-5)
    events[1] = torch.randint(7, 256, events[1].shape)  # whatever the second says, the others answer the same
    after = model.forward_dialogue(events)
    for row in (0, 2):
        torch.testing.assert_close(together[row][real[row]], after[row][real[row]], atol=1e-5, rtol=1e-5)


@each_model
@torch.no_grad()
def test_selecting_conversations_is_selecting_rows(make):
    model, events = make(CONFIG).eval(), ragged()
    state = model.remember(events[:, 0], model.init_state(3))
    assert model.batch_size(state) == 3
    order = torch.tensor([2, 0])
    picked = model.select(state, order)
    assert model.batch_size(picked) == 2
    torch.testing.assert_close(model(events[order, 1], picked)[:, :4], model(events[:, 1], state)[order][:, :4], atol=1e-5, rtol=1e-5)


@each_model
@torch.no_grad()
def test_stacking_conversations_is_undone_by_selecting_them(make):
    """Conversations of unequal age meet in one batch, and part as if they had never met."""
    model, events = make(CONFIG).eval(), ragged()
    apart = []
    for age in (2, 1, 3):
        state = model.init_state(1)
        for event in events[:1, :age].unbind(1):
            state = model.remember(pack(event), state)
        apart.append(state)
    together = model.stack(apart)
    assert model.batch_size(together) == 3
    for row, state in enumerate(apart):
        assert torch.equal(model.select(together, torch.tensor([row])), state)
        model.check_state(state, 1)
    after = model.remember(events[:, 4], together)
    for row, state in enumerate(apart):
        alone = model.remember(pack(events[row : row + 1, 4]), state) if row < 2 else state  # the third says nothing
        torch.testing.assert_close(model.select(after, torch.tensor([row])), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_transcript_takes_room_and_slots_do_not():
    for make, room in ((RxT, 96), (MODELS["DecoderLM"], 96 - 11)):
        model = make(CONFIG).eval()
        assert model.room(model.init_state(1)) == 96
        assert model.room(model.remember(ragged()[1:2, 0], model.init_state(1))) == room


@each_model
@torch.no_grad()
def test_reading_on_equals_reading_at_once(make):
    """The cache: prompts of unequal length, then single tokens, then several at a time."""
    model, events = make(CONFIG).eval(), ragged()
    state, query = model.remember(events[:, 0], model.init_state(3)), events[:, 1]
    answer = torch.randint(7, 256, (3, 6))
    answer[0, 2:] = PAD
    cache = model.open(state, capacity=17)
    pieces = [query, *answer[:, :4].split(1, dim=1), answer[:, 4:]]
    cached = torch.cat([model.extend(piece, cache) for piece in pieces], dim=1)
    whole = model(join(query, answer), state)
    for row in range(3):
        q, a = int((query[row] != PAD).sum()), int((answer[row] != PAD).sum())
        got = torch.cat([cached[row, :q], cached[row, query.shape[1] : query.shape[1] + a]])
        torch.testing.assert_close(got, whole[row, : q + a], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="11 more do not fit"):
        model.extend(query, cache)


@each_model
def test_detaching_between_events_cuts_the_gradient(make):
    """Gradient reaches the first event's tokens through the memory, and stops where the state is detached."""
    model, events = make(CONFIG), torch.randint(7, 100, (2, 3, 8))
    events[:, 0] += 100  # tokens that occur in the first event only

    def reached(detach):
        model.zero_grad()
        state = model.init_state(2)
        for n in (0, 1):
            state = model.remember(events[:, n], state)
            state = state.detach() if detach else state
        model(events[:, 2], state).logsumexp(-1).sum().backward()
        return model.embedding.weight.grad[107:].abs().sum().item()

    assert reached(detach=False) > 0
    if make is RxT:  # a transcript is made of whole numbers: nothing to detach
        assert reached(detach=True) == 0


# --- generation ------------------------------------------------------------------------------


def uncached_greedy(model, query, state, n):
    """The same answer by running everything again for every token."""
    tokens, answer = query, []
    for _ in range(n):
        token = model(tokens, state)[0, -1].argmax()
        answer.append(int(token))
        if token == EOS:
            break
        tokens = torch.cat([tokens, token.view(1, 1)], dim=1)
    return answer


@each_model
@torch.no_grad()
def test_batched_ragged_generation_equals_each_alone_without_a_cache(make):
    model, events = make(CONFIG).eval(), ragged()
    model.head.bias[EOS] += {"RxT": 1.2, "DecoderLM": 2.0, "MemNet": 2.0}[make.__name__]  # so that some rows stop early
    state = model.remember(events[:, 0], model.init_state(3))
    query = events[:, 1]
    answers = generate(model, query, state, max_new_tokens=9)
    lengths = set()
    for row in range(3):
        alone = uncached_greedy(model, query[row][query[row] != PAD][None], model.select(state, torch.tensor([row])), 9)
        lengths.add(len(alone))
        assert answers[row].tolist() == alone + [PAD] * (answers.shape[1] - len(alone))
    assert len(lengths) > 1, "the rows should stop at different times for this test to mean something"


@each_model
@torch.no_grad()
def test_converse_is_the_loop_of_answer_and_remember(make):
    model = make(CONFIG).eval()
    queries = [torch.randint(7, 256, (2, n)) for n in (4, 6, 3)]
    state = model.init_state(2)
    for query, answer in zip(queries, converse(model, queries, max_new_tokens=5)):
        assert torch.equal(answer, generate(model, query, state, 5))
        state = model.remember(join(query, answer), state)


def test_sampling_keeps_to_its_rules():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    seen = lambda **how: set(sample(logits, **how).tolist())  # noqa: E731
    assert seen() == {0}
    assert seen(temperature=1.0) == {0, 1, 2, 3}
    assert seen(temperature=1.0, top_k=2) == {0, 1}
    assert seen(temperature=1.0, top_p=0.6) == {0, 1}  # 0.5 does not reach 0.6, 0.5 + 0.3 does
    assert seen(temperature=1.0, top_p=0.5) == {0}
    share = (sample(logits, temperature=0.5) == 0).float().mean()
    assert abs(share - 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)) < 0.03  # temperature 1/2 squares the odds
    g = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    assert torch.equal(sample(logits, temperature=1.0, generator=g()), sample(logits, temperature=1.0, generator=g()))


@pytest.mark.parametrize("how", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}], ids=str)
def test_sampling_refuses_nonsense(how):
    with pytest.raises(ValueError, match="temperature=.*top_k=.*top_p="):
        sample(torch.zeros(1, 4), **how)


# --- RxT -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", MEMORY_ATTENTIONS)
@torch.no_grad()
def test_the_state_of_an_rxt_never_grows(variant):
    model = RxT(replace(CONFIG, memory_attention=variant)).eval()
    stm = model.init_state(2)
    shapes = set()
    for n in range(6):
        stm = model.remember(torch.randint(7, 256, (2, 4 + n)), stm)
        shapes.add(tuple(stm.shape))
    assert shapes == {(CONFIG.n_layers, 2, CONFIG.n_slots, CONFIG.d_model)} and stm.isfinite().all()


@torch.no_grad()
def test_gaussian_slots_are_fresh_and_learned_slots_are_the_same_every_time():
    learned, fresh = RxT(CONFIG), RxT(replace(CONFIG, **PAPER))
    assert torch.equal(learned.init_state(1), learned.init_state(1))
    assert not torch.equal(fresh.init_state(1), fresh.init_state(1))


OPTIONS = {  # every field of the config that is not a size, and a value of it that is not the default
    "self_heads": (2, 2), "cross_heads": (4, 2), "memory_heads": (2, 1), "query_key_norm": True, "attention_gate": True,
    "n_experts": 4, "experts_per_token": 3, "d_expert": 16, "expert_bias": "global", "shared_experts": 1, "weighted_shared_experts": True,
    "stateless_before": 1, "stateless_after": 1, "memory_attention": "interlayer", "memory_groups": 2, "gate": "static",
    "gate_activation": "tanh", "gate_statistic": "learned", "gate_per_slot": False, "initial_slots": "gaussian",
    "slot_embeddings": False, "head_norm": False,
}
SIZES = {"vocab_size", "d_model", "n_heads", "n_layers", "n_slots", "d_ff", "max_len"}
NEEDS = {  # what must be set before the option means anything
    **dict.fromkeys(("experts_per_token", "d_expert", "expert_bias", "shared_experts"), {"n_experts": 4}),
    "weighted_shared_experts": {"n_experts": 4, "shared_experts": 1}, "memory_groups": {"memory_attention": "grouped"},
    "gate_statistic": {"gate": "linear"}, "gate_per_slot": {"gate": "linear"},
}


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_every_option_changes_the_answer(name):
    """Two models that share every weight both have, and differ in one setting, answer differently."""
    without = replace(CONFIG, **NEEDS.get(name, {}))
    events, answers, weights = ragged(), [], {}
    for config in (without, replace(without, **{name: OPTIONS[name]})):
        torch.manual_seed(0)
        model = RxT(config).eval()
        same = {n: w for n, w in weights.items() if n in model.state_dict() and w.shape == model.state_dict()[n].shape}
        model.load_state_dict(same, strict=False)
        weights = model.state_dict()
        torch.manual_seed(0)
        answers.append(model.forward_dialogue(events)[:, 2])
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_the_list_of_options_is_whole():
    assert {f.name for f in fields(TINY)} == SIZES | set(OPTIONS)


# --- bad input -------------------------------------------------------------------------------


@each_model
def test_bad_input_gets_one_clear_error(make):
    model, good = make(CONFIG).eval(), torch.randint(7, 256, (1, 6))
    state = model.init_state(1)
    for tokens, words in [
        (good.float(), "whole numbers"),
        (good[0], "shape"),
        (good[:, :0], "at least one token"),
        (torch.ones(1, 97, dtype=torch.long), "max_len=96"),
    ]:
        with pytest.raises(ValueError, match=words):
            model(tokens, state)
        with pytest.raises(ValueError, match=words):
            model.remember(tokens, state) if make is RxT or "max_len" not in words else model(tokens, state)
    with pytest.raises(ValueError, match="init_state"):
        model(good.expand(2, -1), state)
    with pytest.raises(ValueError, match="empty"):
        list(stream(model, torch.zeros(1, 3, dtype=torch.long), state, 4))
    with pytest.raises(ValueError, match="max_len=96"):
        generate(model, good, state, max_new_tokens=200)


def test_a_memory_of_the_wrong_shape_says_which_shape_was_expected():
    model = RxT(CONFIG).eval()
    with pytest.raises(ValueError, match=r"\(2, 1, 9, 64\).*\(2, 1, 16, 64\).*init_state"):
        model(torch.ones(1, 4, dtype=torch.long), torch.zeros(2, 1, 9, 64))


def test_packing_closes_gaps_and_keeps_order():
    tokens = torch.tensor([[0, 5, 0, 6], [7, 0, 0, 0], [0, 0, 0, 0]])
    assert pack(tokens).tolist() == [[5, 6], [7, 0], [0, 0]]
