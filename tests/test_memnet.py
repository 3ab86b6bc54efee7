"""MemNet: the bank does what its equations say, each promise kept by a test."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rxt_lite.config import ERASES, MEMNET, MEMNET_AS_DESCRIBED, PAD, TINY, WRITE_POLICIES, MemNetConfig
from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.experiments.cost import cost_rows, total_rows
from rxt_lite.experiments.latency import measure_latency
from rxt_lite.experiments.recall import recall_rows
from rxt_lite.experiments.slots import trace_rows
from rxt_lite.experiments.trace import own_events, record
from rxt_lite.layers.memory_bank import MultiHeadMemoryBank, SemanticBottleneck, Slots, Wish, sparse_softmax
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import load, save
from rxt_lite.models.memnet import MemNet, TransformerController
from rxt_lite.training.memory_losses import (
    MEMORY_LOSSES,
    mutual_information,
    read_entropy,
    step_loss,
    utilisation,
)
from rxt_lite.widgets import GateExplorer, MemoryMap

B, T, N, H, D = 2, 5, 7, 3, 8  # all different, so that a swapped axis fails
CONFIG = MemNetConfig(vocab_size=31, d_model=D, n_heads=2, n_layers=1, n_slots=N, d_ff=20, max_len=64, bank_heads=H, top_k=4,
                      d_bottleneck=6, write_policy="lru")
ONE = replace(CONFIG, bank_heads=1, decay=None)  # one head, nothing fades


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def used(bank, steps=3):
    """Slots that have seen a few events."""
    slots = bank.first_slots(B)
    for _ in range(steps):
        slots, _ = bank.write(slots, bank.propose(torch.randn(B, T, D)))
    return slots


def wish(gate=1.0, erase=1.0, heads=1):
    return Wish(torch.randn(B, heads, D), torch.randn(B, heads, D), torch.full((B, heads), gate), torch.full((B, heads, D), erase))


# ------------------------------------------------------------------------------------------------ configuration
@pytest.mark.parametrize("wrong, words", [
    ({"bank_heads": 0}, ["bank_heads=0"]),
    ({"bank_heads": 8}, ["bank_heads=8", "n_slots=7"]),
    ({"window": 0}, ["window=0"]),
    ({"write_policy": "fifo"}, ["fifo", "priority"]),
    ({"write_gate": "shut"}, ["shut", "open"]),
    ({"erase": "row"}, ["row", "feature"]),
    ({"decay": 1.0}, ["decay=1.0", "None"]),
])
def test_a_wrong_setting_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError) as error:
        replace(CONFIG, **wrong)
    assert all(word in str(error.value) for word in words)


# ------------------------------------------------------------------------------------------------ addressing and reading
@pytest.mark.parametrize("k", [1, 4, N, N + 3])
@torch.no_grad()
def test_the_weights_of_a_read_are_shares_of_at_most_k_slots(k):
    bank = MultiHeadMemoryBank(replace(CONFIG, top_k=k))
    found, weights = bank.read(torch.randn(B, T, D), used(bank))
    assert found.shape == (B, T, D) and weights.shape == (B, T, H, N)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T, H))
    assert ((weights > 0).sum(-1) == min(k, N)).all()


def test_looking_at_all_slots_is_the_plain_softmax_and_only_k_get_a_gradient():
    scores = torch.randn(B, H, N, requires_grad=True)
    assert torch.equal(sparse_softmax(scores, N), scores.softmax(-1))
    assert not torch.allclose(sparse_softmax(scores, 3), scores.softmax(-1))
    sparse_softmax(scores, 3)[..., 0].sum().backward()
    assert ((scores.grad != 0).sum(-1) <= 3).all()


@torch.no_grad()
def test_reading_agrees_with_a_plain_loop_over_heads_and_slots():
    bank = MultiHeadMemoryBank(CONFIG)
    slots, x = used(bank), torch.randn(B, T, D)
    asked = bank.to_query(x).view(B, T, H, D)
    heads = []
    for h in range(H):
        cosines = torch.stack([F.cosine_similarity(asked[:, :, h], slots.keys[:, None, n], dim=-1) for n in range(N)], dim=-1)
        scores = F.softplus(bank.read_sharpness[h]) * cosines
        scores = scores.masked_fill(scores < scores.topk(4).values[..., -1:], -torch.inf)
        heads.append(sum(w[..., None] * slots.values[:, n, None]
                         for n, w in enumerate(scores.softmax(-1).unbind(-1))))
    torch.testing.assert_close(bank.read(x, slots)[0], bank.to_out(torch.cat(heads, dim=-1)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sharpness_decides_how_much_one_slot_gets():
    bank = MultiHeadMemoryBank(replace(CONFIG, top_k=N))
    slots, x, largest = used(bank), torch.randn(B, T, D), []
    for value in (0.1, 8.0, 60.0):
        bank.read_sharpness.fill_(value)
        largest.append(bank.read_weights(x, slots).amax(-1).mean().item())
    assert largest == sorted(largest) and largest[0] < 0.3 < 0.8 < largest[2]


# ------------------------------------------------------------------------------------------------ writing
@pytest.mark.parametrize("erase", ERASES)
@pytest.mark.parametrize("policy", WRITE_POLICIES)
@torch.no_grad()
def test_writing_agrees_with_the_equations_slot_by_slot(policy, erase):
    bank = MultiHeadMemoryBank(replace(CONFIG, write_policy=policy, erase=erase))
    slots, some, reading = used(bank), bank.propose(torch.randn(B, T, D)), torch.rand(B, N)
    after, amount = bank.write(slots, some, reading)
    assert amount.shape == (B, H, N) and some.erase.shape == (B, H, D if erase == "feature" else 1)
    assert erase != "all" or (some.erase == 1).all()
    torch.testing.assert_close(amount.sum(-1), some.gate)  # a head shares out exactly its gate
    for b in range(B):
        for n in range(N):
            keep, value, key = 1.0, slots.values[b, n] * bank.keep[n].sigmoid(), slots.keys[b, n]
            for h in range(H):
                keep, value = keep * (1 - amount[b, h, n]), value * (1 - amount[b, h, n] * some.erase[b, h])
            value = value + sum(amount[b, h, n] * some.value[b, h] for h in range(H))
            key = keep * key + sum(amount[b, h, n] * some.key[b, h] for h in range(H))
            strength = slots.strength[b, n] * bank.keep[n].sigmoid() * keep + 1 - keep
            age, usage = (slots.age[b, n] + 1) * keep, 0.95 * slots.usage[b, n] + 1 - keep + reading[b, n]
            for name, expected in {"keys": key, "values": value, "strength": strength, "age": age, "usage": usage}.items():
                torch.testing.assert_close(getattr(after, name)[b, n], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", WRITE_POLICIES)
@torch.no_grad()
def test_closed_gates_leave_the_memory_as_it_was_to_the_bit(policy):
    bank = MultiHeadMemoryBank(replace(CONFIG, write_policy=policy, decay=None))
    slots = used(bank)
    after, amount = bank.write(slots, wish(gate=0.0, heads=H))
    assert not amount.any()
    for name in ("keys", "values", "strength"):
        assert torch.equal(getattr(after, name), getattr(slots, name))
    assert torch.equal(after.age, slots.age + 1)


@torch.no_grad()
def test_writing_all_of_one_slot_with_full_erase_replaces_it_and_nothing_else():
    bank = MultiHeadMemoryBank(ONE)
    slots, new = used(bank), wish()
    oldest = slots.age.argmax(-1)
    after, _ = bank.write(slots, new)
    rows = torch.arange(B)
    assert torch.equal(after.values[rows, oldest], new.value[:, 0]) and torch.equal(after.keys[rows, oldest], new.key[:, 0])
    others = torch.ones(B, N, dtype=torch.bool).index_put((rows, oldest), torch.tensor(False))
    assert torch.equal(after.values[others], slots.values[others]) and torch.equal(after.keys[others], slots.keys[others])
    assert (after.age[rows, oldest] == 0).all() and (after.strength[rows, oldest] == 1).all()


@torch.no_grad()
def test_erase_works_feature_by_feature():
    bank = MultiHeadMemoryBank(ONE)
    slots, new = used(bank, 7), wish()
    new.erase[..., 0] = 0.0  # nothing of the first feature is taken away, so the old and the new add up
    oldest, rows = slots.age.argmax(-1), torch.arange(B)
    after, _ = bank.write(slots, new)
    torch.testing.assert_close(after.values[rows, oldest, 0], slots.values[rows, oldest, 0] + new.value[:, 0, 0])
    torch.testing.assert_close(after.values[rows, oldest, 1:], new.value[:, 0, 1:])


@torch.no_grad()
def test_least_recently_used_goes_round_and_keeps_exactly_the_last_n():
    """The cliff: writing always, N slots hold the last N events and not one more; the next write comes N steps later."""
    bank = MultiHeadMemoryBank(ONE)
    slots, written, places = bank.first_slots(B), [], []
    for _ in range(3 * N):
        written.append(wish())
        slots, amount = bank.write(slots, written[-1])
        places.append(amount[0, 0].argmax().item())
    assert places == [*range(N)] * 3  # each slot again after exactly N steps
    for lag in range(1, 2 * N):  # the event `lag` writes ago
        cosines = bank.cosines(written[-lag].key, slots)[:, 0]
        held = bool((cosines.amax(-1) > 0.9999).all())
        assert held is (lag <= N), lag


@torch.no_grad()
def test_heads_write_to_different_slots():
    for policy in ("lru", "priority", "random"):
        bank = MultiHeadMemoryBank(replace(CONFIG, write_policy=policy))
        slots = used(bank)
        where = bank.place(torch.randn(B, 1, D).expand(B, H, D), slots)  # all heads bring the same key
        assert torch.equal(where.sum(-1), torch.ones(B, H)) and (where.sum(1) <= 1).all(), policy


@torch.no_grad()
def test_a_priority_finds_the_slot_it_has_written_before_and_else_takes_a_free_one():
    bank = MultiHeadMemoryBank(replace(ONE, write_policy="priority"))
    slots, first, second = bank.first_slots(B), wish(), wish()
    first.key[:], second.key[:] = torch.eye(D)[0], torch.eye(D)[1]
    slots, amount = bank.write(slots, first)
    slots, other = bank.write(slots, second)
    again, third = bank.write(slots, Wish(first.key, second.value, first.gate, first.erase))
    assert torch.equal(third.argmax(-1), amount.argmax(-1)) and not torch.equal(other.argmax(-1), amount.argmax(-1))
    assert (again.strength > 0).sum(-1).tolist() == [2, 2]


def test_a_priority_learns_although_it_chooses_one_slot():
    bank = MultiHeadMemoryBank(replace(CONFIG, write_policy="priority"))
    slots = Slots(*(part.detach() for part in used(bank)))
    after, _ = bank.write(slots, bank.propose(torch.randn(B, T, D)))
    after.values.pow(2).sum().backward()
    assert bank.priority.grad.abs().sum() > 0 and bank.write_sharpness.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------ forgetting
@torch.no_grad()
def test_what_is_not_written_again_fades_as_the_power_of_its_decay():
    bank = MultiHeadMemoryBank(replace(CONFIG, decay=0.9))
    bank.keep.copy_(torch.linspace(-1, 4, N))
    slots = start = used(bank)
    for _ in range(12):
        slots, _ = bank.write(slots, wish(gate=0.0, heads=H))
    expected = start.values.norm(dim=-1) * bank.keep.sigmoid() ** 12
    torch.testing.assert_close(slots.values.norm(dim=-1), expected)


def test_decay_gets_its_gradient():
    bank = MultiHeadMemoryBank(CONFIG)
    bank.read(torch.randn(B, T, D), used(bank))[0].pow(2).sum().backward()
    assert bank.keep.grad.abs().sum() > 0


@torch.no_grad()
def test_slots_that_are_renormalised_never_fade_and_that_is_the_fault():
    """As the public code does: every length is the constant sigmoid of its decay, after one idle step and after a hundred."""
    bank = MultiHeadMemoryBank(replace(CONFIG, decay=0.9, renormalise=True))
    slots, lengths = used(bank, 7), []
    for _ in range(100):
        slots, _ = bank.write(slots, wish(gate=0.0, heads=H))
        lengths.append(slots.values.norm(dim=-1))
    torch.testing.assert_close(lengths[0], torch.full((B, N), 0.9))
    torch.testing.assert_close(lengths[-1], lengths[0])


def test_a_slot_that_is_empty_and_renormalised_has_a_gradient_of_ordinary_size():
    """A few empty slots, a few steps, each of which once multiplied the gradient by 1e12: the weights became not a number."""
    bank = MultiHeadMemoryBank(replace(CONFIG, renormalise=True))
    values = torch.zeros(B, N, D, requires_grad=True)
    slots = bank.first_slots(B)._replace(values=values)
    for _ in range(20):
        slots, _ = bank.write(slots, wish(gate=0.5, heads=H)._replace(gate=torch.full((B, H), 1e-3)))
    slots.values.pow(2).sum().backward()
    assert values.grad.isfinite().all() and values.grad.abs().max() < 1e6


@torch.no_grad()
def test_random_overwrite_survives_as_the_closed_form_says():
    """S(l) = (1 - 1/N)^l: 2,000 banks, each holding one value at the start."""
    bank = MultiHeadMemoryBank(replace(ONE, write_policy="random", n_slots=16))
    slots = bank.first_slots(2000)
    new = Wish(torch.randn(2000, 1, D), torch.ones(2000, 1, D), torch.ones(2000, 1), torch.ones(2000, 1, D))
    alive = torch.ones(2000, dtype=torch.bool)
    for l in range(1, 33):
        slots, amount = bank.write(slots, new)
        alive &= amount[:, 0, 3] == 0
        expected = (1 - 1 / 16) ** l
        assert abs(alive.float().mean() - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5, l


@torch.no_grad()
def test_reading_makes_a_slot_young_only_where_that_is_asked_for():
    reading = torch.zeros(B, N)
    reading[:, 2] = 0.9
    for refreshes in (True, False):
        bank = MultiHeadMemoryBank(replace(ONE, read_refreshes=refreshes))
        slots = used(bank)
        after, _ = bank.write(slots, wish(gate=0.0), reading)
        assert (after.age[:, 2] == (0 if refreshes else slots.age[:, 2] + 1)).all()
        torch.testing.assert_close(after.usage[:, 2], 0.95 * slots.usage[:, 2] + 0.9)


@pytest.mark.parametrize("policy", ["lru", "priority"])
@torch.no_grad()
def test_ten_thousand_steps_stay_bounded(policy):
    """What is held after 10,000 random events is no larger than after 1,000; and whatever is read, its normalised sum is not large."""
    bank, sizes = MultiHeadMemoryBank(replace(CONFIG, write_policy=policy)), {}
    wishes = bank.propose(torch.randn(10_000, 1, D))
    slots = bank.first_slots(1)
    for step in range(10_000):
        slots, _ = bank.write(slots, Wish(*(part[step : step + 1] for part in wishes)))
        if step + 1 in (1000, 10_000):
            sizes[step + 1] = max(slots.values.abs().max().item(), slots.keys.abs().max().item())
    assert sizes[10_000] < 1.5 * sizes[1000] + 1
    model = MemNet(CONFIG)
    y = model.norm_fused(1e3 * bank.read(torch.randn(1, T, D), slots)[0])
    assert y.abs().max() <= D**0.5 + 1e-3  # whatever is read, the normalised sum is no longer than sqrt(D)


# ------------------------------------------------------------------------------------------------ bottleneck and controller
def test_the_bottleneck_passes_no_more_than_its_width():
    squeeze = SemanticBottleneck(CONFIG)
    out = squeeze(torch.randn(50, D)) - squeeze.to_value.bias
    assert torch.linalg.matrix_rank(out) == CONFIG.d_bottleneck


@pytest.mark.parametrize("window", [1, 3, None])
@torch.no_grad()
def test_the_controller_sees_its_window_and_nothing_else(window):
    controller, x = TransformerController(replace(CONFIG, window=window)), torch.randn(1, 12, D)
    before = controller(x)
    for changed in range(12):
        other = x.clone()
        other[0, changed] += 1.0
        sees = ((controller(other) - before).abs().amax(-1)[0] > 1e-6).nonzero().flatten().tolist()
        assert sees == [*range(changed, 12 if window is None else min(12, changed + window))]


@torch.no_grad()
def test_a_window_reads_on_as_it_reads_at_once():
    model, tokens = MemNet(replace(CONFIG, window=3)).eval(), torch.randint(7, 31, (2, 9))
    tokens[0, 4:] = PAD
    state = model.remember(tokens, model.init_state(2))
    cache = model.open(state, 15)
    more = torch.randint(7, 31, (2, 4))
    model.extend(tokens, cache)
    got = torch.cat([model.extend(more[:, :1], cache), model.extend(more[:, 1:], cache)], dim=1)
    whole = [torch.cat([tokens[0, :4], more[0]])[None], torch.cat([tokens[1], more[1]])[None]]
    for row, alone in enumerate(whole):
        torch.testing.assert_close(got[row], model(alone, state[row : row + 1])[0, -4:], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ the whole
@torch.no_grad()
def test_steps_of_one_token_are_events_of_one_token():
    """Two routes, one answer: with a window of 1 a sequence of steps is a dialogue of one-token events."""
    model = MemNet(replace(CONFIG, window=1)).eval()
    tokens = torch.randint(7, 31, (B, T))
    steps = model.forward_sequence(tokens)
    torch.testing.assert_close(steps.logits, EventModel.forward_dialogue(model, tokens.unsqueeze(2)), atol=1e-5, rtol=1e-5)
    state = model.init_state(B)
    for token in tokens.split(1, dim=1):
        state = model.remember(token, state)
    torch.testing.assert_close(steps.state, state)
    assert steps.read.shape == (B, T, 1, H, N) and steps.write.shape == (B, T, H, N)
    assert steps.gate.shape == (B, T, H) and steps.before.strength.shape == (B, T, N)


@torch.no_grad()
def test_events_with_everything_that_happened_give_the_same_answers():
    model, events = MemNet(CONFIG).eval(), torch.randint(7, 31, (B, 4, T))
    events[0, 2] = events[1, :, 3:] = PAD
    steps, real = model.forward_events(events), events != PAD
    torch.testing.assert_close(steps.logits[real], model.forward_dialogue(events)[real])
    state = model.init_state(B)
    for event in events.unbind(1):
        state = model.remember(event, state)
    torch.testing.assert_close(steps.state, state)


@torch.no_grad()
def test_without_memory_nothing_beyond_the_window_changes_an_answer():
    model = MemNet(replace(CONFIG, window=2)).eval()
    tokens = torch.randint(7, 31, (B, 10))
    other = tokens.clone()
    other[:, 0] = (tokens[:, 0] - 6) % 24 + 7
    same = lambda memory: torch.allclose(*(model.forward_sequence(t, memory=memory).logits[:, 5:] for t in (tokens, other)), atol=1e-6)  # noqa: E731
    assert same(memory=False) and not same(memory=True)


@pytest.mark.parametrize("name, value", [
    ("top_k", 1), ("d_bottleneck", 3), ("window", 2), ("write_policy", "content"), ("write_gate", "open"), ("erase", "slot"),
    ("erase", "all"), ("separate_keys", False), ("decay", 0.5), ("renormalise", True), ("bank_heads", 2), ("read_refreshes", True),
])
@torch.no_grad()
def test_every_option_changes_the_answer(name, value):
    answers, weights = [], {}
    for config in (replace(CONFIG, n_slots=4), replace(CONFIG, n_slots=4, **{name: value})):
        torch.manual_seed(0)
        model = MemNet(config).eval()
        model.load_state_dict({n: w for n, w in weights.items() if n in model.state_dict() and w.shape == model.state_dict()[n].shape},
                              strict=False)
        model.bank.keep.fill_(model.config.decay)
        model.bank.read_sharpness.fill_(20.0)  # so that some reads are sharp enough to refresh a slot
        weights = model.state_dict()
        answers.append(model.forward_sequence(torch.randint(7, 31, (B, 40), generator=torch.Generator().manual_seed(1))).logits)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_a_shape_for_any_model_makes_a_memnet_and_is_saved_as_one(tmp_path):
    model = MemNet(TINY)
    assert isinstance(model.config, MemNetConfig) and model.config.n_slots == TINY.n_slots
    model = MemNet(CONFIG).eval()
    again = load(save(model, tmp_path / "m"))
    assert again.config == CONFIG
    tokens = torch.randint(7, 31, (B, T))
    assert torch.equal(again.forward_sequence(tokens).logits, model.forward_sequence(tokens).logits)


@pytest.mark.parametrize("config", [MEMNET, MEMNET_AS_DESCRIBED], ids=["repaired", "as described"])
@torch.no_grad()
def test_both_presets_run(config):
    model = MemNet(config).eval()
    steps = model.forward_sequence(torch.randint(7, 20, (2, 6)))
    assert all(part.isfinite().all() for part in (*steps.before, *(p for p in steps if isinstance(p, torch.Tensor))))
    lengths = Slots.unpack(steps.state).values.norm(dim=-1)
    if config.renormalise:
        torch.testing.assert_close(lengths, torch.full_like(lengths, config.decay))


@torch.no_grad()
def test_low_precision_keeps_the_bank_in_full():
    model, tokens = MemNet(CONFIG).eval(), torch.randint(7, 31, (B, T))
    full = model.forward_sequence(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.forward_sequence(tokens)
    assert half.state.dtype == torch.float32
    assert 0 < (half.logits.float() - full.logits).abs().max() < 0.2


@torch.no_grad()
def test_a_step_may_be_a_bag_of_tokens():
    model, bags = MemNet(replace(CONFIG, window=2)).eval(), torch.randint(7, 31, (B, T, 3))
    steps = model.forward_sequence(bags)
    assert steps.logits.shape == (B, T, 1, 31)
    torch.testing.assert_close(model.forward_sequence(bags.flip(2)).logits, steps.logits)  # in no order
    model.embedding.weight[0] = 0.0
    torch.testing.assert_close(model.forward_sequence(bags[..., :1]).logits, model.forward_sequence(bags[..., 0]).logits)


def test_a_sequence_of_steps_has_no_padding():
    with pytest.raises(ValueError, match="no padding"):
        MemNet(CONFIG).forward_sequence(torch.tensor([[8, PAD]]))


def test_a_bank_of_the_wrong_shape_says_which_was_expected():
    with pytest.raises(ValueError, match=r"\(1, 9, 19\).*\(1, 7, 19\).*init_state"):
        MemNet(CONFIG)(torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 9, 19))


# ------------------------------------------------------------------------------------------------ cost and recall
@pytest.mark.parametrize("options", [
    {}, {"write_policy": "priority"}, {"write_policy": "content", "erase": "slot"}, {"erase": "all", "write_gate": "open"},
    {"separate_keys": False, "n_layers": 2},
], ids=str)
def test_counts_agree_with_the_profiler(options):
    config = replace(CONFIG, d_model=16, max_len=32, **options)
    model = MemNet(config).eval().requires_grad_(False)
    state, rows = model.init_state(1), {row["arm"]: row for row in cost_rows(config, 2, 5, 4)}

    def counted(work):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            work()
        return counter.get_total_flops() // 2

    def answer():
        cache = model.open(state, 12)
        for tokens in (torch.ones(1, 5, dtype=torch.long), *torch.ones(1, 3, dtype=torch.long).split(1, dim=1)):
            model.extend(tokens, cache)

    assert counted(answer) == rows["memnet_answer"]["macs"]
    assert counted(lambda: model.remember(torch.ones(1, 9, dtype=torch.long), state)) == rows["memnet_update"]["macs"]
    assert rows["memnet_update"]["state_bytes"] == state.numel() * state.element_size()


def test_totals_and_latency_know_a_memnet_by_its_name():
    totals = {row["arm"]: row for row in total_rows(MEMNET, 4)}
    assert list(totals) == ["memnet_answer", "memnet_update", "memnet", "reread", "prefix_cached"]
    assert totals["memnet"]["macs"] == totals["memnet_answer"]["macs"] + totals["memnet_update"]["macs"]
    times = measure_latency(replace(CONFIG, max_len=16), 2, query_tokens=5, answer_tokens=3, rounds=1)
    assert set(times) == {(arm, turn) for arm in ("memnet_answer", "memnet_update", "reread", "prefix_cached") for turn in (1, 2)}


def test_recall_takes_a_memnet_as_it_takes_any_model():
    tokenizer = world_tokenizer()
    model = MemNet(replace(CONFIG, vocab_size=tokenizer.get_vocab_size(), max_len=48)).eval()
    rows = recall_rows(model, None, make_dialogues("base", 4, split="test_iid", seed=3), tokenizer, seed=0)
    assert {row["arm"] for row in rows} == {"memory_on", "memory_reset", "memory_swapped", "last_event_only", "chance"}


# ------------------------------------------------------------------------------------------------ losses
def test_round_robin_and_uniform_reading_differ_in_mutual_information_only():
    one_hot, uniform, single = torch.eye(N)[:, None, None], torch.full((N, 1, 1, N), 1 / N), torch.eye(N)[:1].expand(N, N)[:, None, None]
    for weights, expected in ((one_hot, (1, 0, 1)), (uniform, (1, 1, 0)), (single, (0, 0, 0))):
        got = [f(weights).item() for f in (utilisation, read_entropy, mutual_information)]
        assert got == pytest.approx(expected, abs=1e-6)


MOVES = {  # loss: what it names, and whether that must rise
    "utilisation": (lambda s: utilisation(s.read), True),
    "read_entropy": (lambda s: read_entropy(s.read), False),
    "mutual_information": (lambda s: mutual_information(s.read), True),
    "pressure": (lambda s: s.before.strength.mean(), False),
    "write_cost": (lambda s: s.gate.sum(-1).mean(), False),
}


@pytest.mark.parametrize("name", MEMORY_LOSSES)
def test_each_loss_has_a_gradient_and_moves_what_it_names(name):
    model, tokens = MemNet(replace(CONFIG, decay=0.9)), torch.randint(7, 31, (8, 12))
    measure, rises = MOVES[name]
    optimizer = torch.optim.Adam(model.bank.parameters(), lr=0.01)
    before = measure(model.forward_sequence(tokens)).item()
    for _ in range(10):
        optimizer.zero_grad()
        MEMORY_LOSSES[name](model.forward_sequence(tokens)).backward()
        optimizer.step()
    moved = [n for n, p in model.bank.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert "to_query.weight" in moved if "read" in name or "util" in name or "mutual" in name else "to_gate.weight" in moved
    assert ("keep" in moved) is (name == "pressure")
    after = measure(model.forward_sequence(tokens)).item()
    assert (after - before > 1e-3) if rises else (before - after > 1e-3)


def test_the_loss_of_steps_adds_what_is_asked_for():
    model, tokens = MemNet(CONFIG), torch.randint(7, 31, (B, T))
    targets = torch.full_like(tokens, -1)
    targets[:, -1] = tokens[:, 0]
    steps = model.forward_sequence(tokens)
    plain = F.cross_entropy(steps.logits[:, -1, 0], tokens[:, 0])
    torch.testing.assert_close(step_loss(model, tokens, targets), plain)
    both = step_loss(model, tokens, targets, {"write_cost": 0.5, "pressure": 0.1})
    torch.testing.assert_close(both, plain + 0.5 * steps.gate.sum(-1).mean() + 0.1 * steps.before.strength.mean())


@torch.no_grad()
def test_the_recorder_and_the_widgets_show_a_memnet_as_they_show_an_rxt():
    tokenizer = world_tokenizer()
    model = MemNet(replace(CONFIG, vocab_size=tokenizer.get_vocab_size())).eval()
    dialogue = make_dialogues("base", 1, split="test_iid", seed=0)[0]
    events = own_events(model, dialogue, tokenizer, max_new_tokens=3)
    trace, state = record(model, events), model.init_state(1)
    for n, tokens in enumerate(events):
        reading = model.bank.read_weights(model.norm_bank(model.controller(model.embedding(tokens))), Slots.unpack(state))
        torch.testing.assert_close(trace.read[n][0], reading[0].mean(1))  # from the slots before the event
        state = model.remember(tokens, state)
        torch.testing.assert_close(trace.slots[n + 1, 0], state[0, :, : 2 * D])
    assert trace.gate.shape == (len(events), 1, N) and (trace.gate > 0).any() and (trace.gate < 1).all()
    assert all(weights.shape == (1, N, tokens.shape[1]) for weights, tokens in zip(trace.write, events))
    later = record(model, events[1:], model.remember(events[0], model.init_state(1)))
    torch.testing.assert_close(later.slots, trace.slots[1:])
    shown = MemoryMap(trace, tokenizer, event=2)
    assert shown.trace["config"] == {"n_layers": 1, "n_slots": N, "d_model": 2 * D} and len(shown.changes) == len(events)
    assert len(GateExplorer(trace_rows(trace, tokenizer)).rows) == len(events) * N
