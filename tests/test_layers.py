"""Facts about the parts: each against an independent reference, each shape table held to."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rxt_lite.config import GATE_ACTIVATIONS, GATES, MEMORY_ATTENTIONS, PAPER, ModelConfig, preset
from rxt_lite.layers.attention import Attention
from rxt_lite.layers.blocks import DecoderLayer, EncoderLayer
from rxt_lite.layers.feedforward import FeedForward
from rxt_lite.layers.gate import ResidualGate
from rxt_lite.layers.linear import LayerwiseLinear
from rxt_lite.layers.memory import MemoryAttention
from rxt_lite.layers.norm import RMSNorm
from rxt_lite.layers.rope import Rope, rotate

L, B, S, T, D, H = 3, 2, 5, 7, 24, 4  # all different, so that a swapped axis fails
CONFIG = ModelConfig(d_model=D, n_heads=H, n_layers=L, n_slots=S, d_ff=20, max_len=16)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"d_model": 25}, ["d_model=25", "n_heads=4"]),
        ({"d_model": 12}, ["odd width 3"]),
        ({"n_slots": 0}, ["n_slots=0"]),
        ({"gate": "linaer"}, ["linaer", "linear"]),
        ({"memory_attention": "selfish"}, ["selfish", "self_interlayer"]),
        ({"self_heads": (8, 4)}, ["self_heads=(8, 4)", "n_heads=4"]),
        ({"memory_heads": (4, 3)}, ["memory_heads=(4, 3)", "multiple"]),
        ({"initial_slots": "zeros"}, ["zeros", "gaussian"]),
        ({"stateless_after": -1}, ["stateless_after=-1", "at least 0"]),
        ({"n_experts": True}, ["n_experts=True", "whole number"]),
        ({"n_experts": 3, "experts_per_token": 4}, ["experts_per_token=4", "n_experts=3"]),
        ({"n_experts": 3, "d_expert": 0}, ["d_expert=0", "at least 1"]),
        ({"d_expert": 8}, ["d_expert=8", "n_experts=0"]),
        ({"shared_experts": 1}, ["shared_experts=1", "n_experts=0"]),
        ({"n_experts": 3, "weighted_shared_experts": True}, ["weighted_shared_experts=True", "shared_experts=0"]),
        ({"expert_bias": "some"}, ["some", "global"]),
        ({"memory_groups": 3}, ["memory_groups=3", "'simple'"]),
        ({"memory_attention": "grouped", "memory_groups": 2}, ["memory_groups=2", "n_layers=3"]),
        ({"gate": "none", "gate_activation": "tanh"}, ["gate_activation='tanh'", "gate='none'"]),
        ({"gate": "static", "gate_statistic": "learned"}, ["gate_statistic='learned'", "gate='static'"]),
        ({"gate": "slot", "gate_per_slot": False}, ["gate_per_slot=False", "gate='slot'"]),
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError) as error:
        replace(CONFIG, **wrong)
    assert all(word in str(error.value) for word in words)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="'nano'.*tiny, book"):
        preset("nano")


# --- positions -------------------------------------------------------------------------------


def test_rope_turns_each_pair_by_its_angle():
    x = torch.randn(B, T, H, CONFIG.d_head)
    got = rotate(x, Rope(CONFIG)(torch.arange(T)))
    as_pairs = torch.view_as_real(Rope(CONFIG)(torch.arange(T)))  # what compiled layers are given
    torch.testing.assert_close(rotate(x, as_pairs), got)
    freq = 10_000 ** -(torch.arange(0, CONFIG.d_head, 2) / CONFIG.d_head)
    cos, sin = (f(torch.outer(torch.arange(T), freq))[:, None] for f in (torch.cos, torch.sin))
    x1, x2 = x[..., 0::2], x[..., 1::2]
    torch.testing.assert_close(got[..., 0::2], x1 * cos - x2 * sin)
    torch.testing.assert_close(got[..., 1::2], x1 * sin + x2 * cos)


def test_rope_sees_only_distance():
    q, k, rope = torch.randn(CONFIG.d_head), torch.randn(CONFIG.d_head), Rope(CONFIG)
    turned = lambda x, at: rotate(x.view(1, 1, -1), rope(torch.tensor([at]))).flatten()  # noqa: E731
    score = lambda i, j: turned(q, i) @ turned(k, j)  # noqa: E731
    torch.testing.assert_close(score(3, 1), score(12, 10))
    assert not torch.isclose(score(3, 1), score(3, 2))


# --- attention -------------------------------------------------------------------------------


def by_hand(attention, x, source, mask=None, *, q_rotation=None, k_rotation=None):
    """Attention as a loop over heads, in float64, without repeat or grouped kernels."""
    K, Hq, G = attention.d_head, attention.query_heads, attention.kv_heads
    q, k, v = (F.linear(t, w) for t, w in zip((x, source, source), (attention.to_q.weight, attention.to_k.weight, attention.to_v.weight)))
    heads = []
    for h in range(max(Hq, G)):
        hq, hk = (h, h * G // Hq) if Hq >= G else (h % Hq, h)  # neighbours share keys; queries are tiled
        qh, kh, vh = q[..., hq * K : (hq + 1) * K], k[..., hk * K : (hk + 1) * K], v[..., hk * K : (hk + 1) * K]
        if attention.norm_q is not None:
            qh, kh = (F.rms_norm(t, (K,), n.weight, RMSNorm.eps) for t, n in ((qh, attention.norm_q), (kh, attention.norm_k)))
        turn = lambda x, r: rotate(x.unsqueeze(-2), r).squeeze(-2)  # noqa: E731
        scores = turn(qh, q_rotation) @ turn(kh, k_rotation).transpose(-1, -2) / K**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        heads.append(scores.softmax(-1) @ vh)
    out = torch.cat(heads, -1)
    if attention.to_gate is not None:
        out = out * F.linear(x, attention.to_gate.weight).sigmoid()
    return F.linear(out, attention.to_out.weight, attention.to_out.bias)


@pytest.mark.parametrize("options", [{}, {"query_key_norm": True, "attention_gate": True}], ids=["plain", "norm and gate"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1), (2, 2), (1, 1), (2, 1), (2, 4), (1, 4)], ids=str)
@torch.no_grad()
def test_attention_equals_a_loop_over_heads(heads, options):
    attention = Attention(replace(CONFIG, **options), heads).double()
    for p in attention.parameters():
        p.normal_()
    x, source = torch.randn(B, T, D).double(), torch.randn(B, S, D).double()
    mask = torch.rand(B, T, S) > 0.4
    mask[:, :, 0] = True
    turns = {"q_rotation": Rope(CONFIG)(torch.arange(T)), "k_rotation": Rope(CONFIG)(torch.arange(S))}
    got = attention(x, source, mask=mask, **turns)
    assert got.shape == (B, T, D)
    torch.testing.assert_close(got, by_hand(attention, x, source, mask, **turns))


@torch.no_grad()
def test_full_heads_agree_with_torch_multihead_attention():
    ours = Attention(CONFIG, (H, H))
    theirs = torch.nn.MultiheadAttention(D, H, bias=True, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.to_q.weight, ours.to_k.weight, ours.to_v.weight]))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.weight.copy_(ours.to_out.weight)
    theirs.out_proj.bias.copy_(ours.to_out.bias)
    x, source = torch.randn(B, T, D), torch.randn(B, S, D)
    torch.testing.assert_close(ours(x, source), theirs(x, source, source)[0])


@torch.no_grad()
def test_causal_attention_never_looks_ahead():
    attention, x = Attention(CONFIG, (H, H)), torch.randn(B, T, D)
    before = attention(x, causal=True)
    x[:, 4:] += 1
    after = attention(x, causal=True)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("few", [2, 1])
@torch.no_grad()
def test_shared_heads_equal_full_heads_whose_keys_and_values_repeat(few):
    """GQA and MQA (4, few), and SQA (2, few): repeat each key-value head, and nothing is shared any more."""
    x = torch.randn(B, T, D)
    for asked in (4, 2):
        shared, full = Attention(CONFIG, (asked, few)), Attention(CONFIG, (asked, asked))
        weights = shared.state_dict()
        for name in ("to_k.weight", "to_v.weight"):
            weights[name] = weights[name].unflatten(0, (few, -1)).repeat_interleave(asked // few, 0).flatten(0, 1)
        full.load_state_dict(weights)
        torch.testing.assert_close(shared(x, causal=True), full(x, causal=True))


@torch.no_grad()
def test_reverse_sharing_tiles_the_queries():
    """Two query heads on four key-value heads ask like four query heads, of which the third is the first."""
    reverse, full = Attention(CONFIG, (2, 4)), Attention(CONFIG, (4, 4))
    weights = reverse.state_dict()
    full.load_state_dict(weights | {"to_q.weight": weights["to_q.weight"].repeat(2, 1)})
    x = torch.randn(B, T, D)
    torch.testing.assert_close(reverse(x), full(x))


@pytest.mark.parametrize("options", [{}, {"query_key_norm": True, "attention_gate": True}], ids=["plain", "norm and gate"])
@pytest.mark.parametrize("heads", [(4, 2), (2, 4)], ids=str)
@torch.no_grad()
def test_stacked_layers_equal_one_layer_at_a_time(heads, options):
    config = replace(CONFIG, **options)
    stacked, single = Attention(config, heads, layerwise=True), Attention(config, heads)
    for p in stacked.parameters():
        p.normal_(std=0.3)
    x, source = torch.randn(L, B, S, D), torch.randn(L, B, T, D)
    mask = (torch.rand(B, S, T) > 0.4).index_fill(2, torch.tensor(0), True)
    got = stacked(x, source, mask=mask)
    assert got.shape == (L, B, S, D)
    for layer in range(L):
        single.load_state_dict({name: w[layer].reshape(single.state_dict()[name].shape) for name, w in stacked.state_dict().items()})
        torch.testing.assert_close(got[layer], single(x[layer], source[layer], mask=mask))


@torch.no_grad()
def test_norm_equals_torch_norm():
    norm, x = RMSNorm(D), torch.randn(B, T, D)
    torch.testing.assert_close(norm(x), torch.nn.RMSNorm(D)(x))
    norm, x = RMSNorm(D, n_layers=L), torch.randn(L, B, S, D)
    norm.weight.uniform_()
    for layer in range(L):
        torch.testing.assert_close(norm(x)[layer], F.rms_norm(x[layer], (D,), norm.weight[layer, 0, 0]))


# --- feed-forward ----------------------------------------------------------------------------


@torch.no_grad()
def test_feedforward_is_swiglu():
    ff, x = FeedForward(CONFIG), torch.randn(B, T, D)
    (w1, b1), (w2, b2) = ((m.weight, m.bias) for m in (ff.to_hidden, ff.to_out))
    F_ = CONFIG.d_ff
    linear, gate = x @ w1[:F_].T + b1[:F_], x @ w1[F_:].T + b1[F_:]
    expected = (linear * gate / (1 + (-gate).exp())) @ w2.T + b2
    assert ff(x).shape == (B, T, D)
    torch.testing.assert_close(ff(x), expected)


# --- gates -----------------------------------------------------------------------------------


GATE_OPTIONS = [
    *({"gate": kind} for kind in GATES),
    *({"gate": kind, "gate_activation": "tanh"} for kind in ("static", "elementwise", "linear", "slot")),
    *({"gate": kind, "gate_per_slot": False} for kind in ("static", "elementwise", "linear")),
    *({"gate": kind, "gate_statistic": "learned", "gate_activation": a} for kind in ("elementwise", "linear") for a in GATE_ACTIVATIONS),
    {"gate": "linear", "gate_statistic": "learned", "gate_per_slot": False},
]


@pytest.mark.parametrize("options", GATE_OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@torch.no_grad()
def test_every_gate_is_its_equation(options):
    config = replace(CONFIG, **options)
    kind, activation = config.gate, config.gate_activation
    gate = ResidualGate(config).double()
    for p in gate.parameters():
        p.normal_()
    old, new = torch.randn(L, B, S, D).double(), torch.randn(L, B, S, D).double()
    got = gate(old, new)
    assert got.shape == (L, B, S, D)
    for layer in range(L):
        for row in range(B):
            o, n = old[layer, row], new[layer, row]
            s = (o + n).mean(-1)
            if config.gate_statistic == "learned":
                s = (o + n) @ gate.to_statistic.weight[layer, 0] + gate.to_statistic.bias[layer, 0]
            if kind in ("none", "replace"):
                expected = o + n if kind == "none" else n
            else:
                raw = {
                    "static": lambda: gate.weight[layer, 0],
                    "elementwise": lambda: gate.weight[layer, 0] * s,
                    "linear": lambda: gate.to_gate.weight[layer] @ s + gate.to_gate.bias[layer, 0],
                    "slot": lambda: torch.cat([o, n], -1) @ gate.to_gate.weight[layer, 0] + gate.to_gate.bias[layer, 0],
                }[kind]()
                g = (torch.sigmoid(raw) if activation == "sigmoid" else torch.tanh(raw))[:, None]
                expected = g * n + (1 - g) * o if activation == "sigmoid" else (1 + g) * n + (1 - g) * o
            torch.testing.assert_close(got[layer, row], expected)


@pytest.mark.parametrize("kind", ["static", "elementwise", "linear", "slot"])
@torch.no_grad()
def test_a_sigmoid_gate_keeps_slots_between_old_and_update(kind):
    old, new = torch.randn(L, B, S, D), torch.randn(L, B, S, D)
    got = ResidualGate(replace(CONFIG, gate=kind))(old, new)
    assert (got >= torch.minimum(old, new) - 1e-6).all() and (got <= torch.maximum(old, new) + 1e-6).all()


# --- memory attention ------------------------------------------------------------------------


def event_and_slots():
    return torch.randn(L, B, S, D), torch.randn(L, B, T, D), Rope(CONFIG)(torch.arange(T))


@pytest.mark.parametrize("variant", MEMORY_ATTENTIONS)
@pytest.mark.parametrize("gate", GATES)
@torch.no_grad()
def test_every_memory_attention_is_its_equation(variant, gate):
    """A transcription of the equations, layer by layer, in float64, from the paper's side of the docstring."""
    memory = MemoryAttention(replace(CONFIG, memory_attention=variant, gate=gate)).double()
    stm, event, rotation = event_and_slots()
    stm, event = stm.double(), event.double()
    ignore = torch.zeros(B, T, dtype=torch.bool).index_fill(1, torch.tensor([5, 6]), True)

    def one(module, layer):  # the attention of one layer, as a plain Attention
        single = Attention(CONFIG, (H, H)).double()
        single.load_state_dict({n: w[layer].squeeze(0) if "bias" in n else w[layer] for n, w in module.state_dict().items()})
        return single

    norm = lambda module, x, layer: F.rms_norm(x, (D,), eps=RMSNorm.eps) * module.weight[layer, 0, 0]  # noqa: E731
    x = stm
    if variant != "simple":
        n1 = torch.stack([norm(memory.norm_first, stm[i], i) for i in range(L)])
        m = F.rms_norm(stm.mean(0), (D,), eps=RMSNorm.eps) * memory.norm_mean.weight if variant != "self" else None
        z = n1 if variant == "self" else torch.stack([m] * L)
        if variant in ("self_interlayer", "grouped"):
            z = memory.gate_mean(n1, z)
        x = memory.gate_first(stm, torch.stack([by_hand(one(memory.attention_first, i), n1[i], z[i]) for i in range(L)]))
    update = torch.stack(
        [
            by_hand(one(memory.attention, i), norm(memory.norm_stm, x[i], i) + memory.names[i], norm(memory.norm_event, event[i], i),
                    ~ignore[:, None].expand(B, S, T), k_rotation=rotation)
            for i in range(L)
        ]
    )
    got = memory(stm, event, rotation, ignore)
    assert got.shape == (L, B, S, D)
    torch.testing.assert_close(got, memory.gate(x, update))


@pytest.mark.parametrize("variant", MEMORY_ATTENTIONS)
@torch.no_grad()
def test_memory_attention_ignores_padding_and_leaves_its_input_alone(variant):
    memory = MemoryAttention(replace(CONFIG, memory_attention=variant))
    stm, event, rotation = event_and_slots()
    before = stm.clone()
    ignore = torch.zeros(B, T, dtype=torch.bool).index_fill(1, torch.tensor([4, 5, 6]), True)
    first = memory(stm, event, rotation, ignore)
    event[:, :, 4:] = 100.0
    torch.testing.assert_close(first, memory(stm, event, rotation, ignore))
    assert torch.equal(stm, before)


def shuffled(config):
    """How far memory attention is from treating slots as a set: shuffle before against shuffle after."""
    memory, order = MemoryAttention(config), torch.tensor([3, 0, 4, 1, 2])
    stm, event, rotation = event_and_slots()
    return (memory(stm[:, :, order], event, rotation) - memory(stm, event, rotation)[:, :, order]).abs().max()


@torch.no_grad()
def test_without_names_slots_are_a_set_unless_a_linear_gate_tells_them_apart():
    plain = replace(CONFIG, slot_embeddings=False)
    for variant in MEMORY_ATTENTIONS:
        for gate in ("none", "slot"):
            assert shuffled(replace(plain, memory_attention=variant, gate=gate)) < 1e-5
        assert shuffled(replace(plain, memory_attention=variant, gate="linear")) > 1e-3
        assert shuffled(replace(CONFIG, memory_attention=variant)) > 1e-3, "slot embeddings had no effect"


# --- blocks ----------------------------------------------------------------------------------


@torch.no_grad()
def test_blocks_keep_their_shapes_and_the_encoder_sees_both_ways():
    x, rotation = torch.randn(B, T, D), Rope(CONFIG)(torch.arange(T))
    encoder, decoder = EncoderLayer(CONFIG), DecoderLayer(CONFIG, memory=True)
    slots = decoder.read_slots(torch.randn(B, S, D))
    assert encoder(x, rotation).shape == decoder(x, rotation, slots).shape == (B, T, D)
    assert slots[0].shape == slots[1].shape == (B, H, S, CONFIG.d_head)
    changed = x.clone()
    changed[:, -1] += 1
    assert not torch.allclose(encoder(x, rotation)[:, 0], encoder(changed, rotation)[:, 0])
    torch.testing.assert_close(decoder(x, rotation, slots)[:, 0], decoder(changed, rotation, slots)[:, 0])


@torch.no_grad()
def test_reading_does_not_depend_on_the_order_of_the_slots():
    x, rotation, stm = torch.randn(B, T, D), Rope(CONFIG)(torch.arange(T)), torch.randn(B, S, D)
    decoder = DecoderLayer(CONFIG, memory=True)
    torch.testing.assert_close(
        decoder(x, rotation, decoder.read_slots(stm)), decoder(x, rotation, decoder.read_slots(stm.flip(1)))
    )


def test_layerwise_linear_has_the_shapes_it_says():
    assert LayerwiseLinear(L, D, 11)(torch.randn(L, B, S, D)).shape == (L, B, S, 11)


def test_paper_settings_are_all_fields_of_the_config():
    config = replace(CONFIG, **PAPER)
    assert all(getattr(config, name) == value for name, value in PAPER.items())


@torch.no_grad()
def test_grouped_memory_attention_means_over_each_group_alone():
    config = ModelConfig(d_model=D, n_heads=H, n_layers=4, n_slots=S, max_len=16, memory_attention="grouped", memory_groups=2)
    memory, one_group = MemoryAttention(config), MemoryAttention(replace(config, memory_groups=1))
    whole = MemoryAttention(replace(config, memory_groups=1, memory_attention="self_interlayer"))
    for other in (one_group, whole):
        other.load_state_dict(memory.state_dict())
    stm, event, rotation = torch.randn(4, B, S, D), torch.randn(4, B, T, D), Rope(config)(torch.arange(T))
    torch.testing.assert_close(one_group(stm, event, rotation), whole(stm, event, rotation))  # one group: all layers
    before = memory(stm, event, rotation)
    stm[3] += 1  # in the second group
    after = memory(stm, event, rotation)
    torch.testing.assert_close(before[:2], after[:2])
    assert not torch.allclose(before[2], after[2])


@pytest.mark.parametrize("variant", MEMORY_ATTENTIONS)
@pytest.mark.parametrize("gate", ["elementwise", "linear", "slot"])
def test_gradients_of_the_write_are_those_of_its_differences(variant, gate):
    config = ModelConfig(d_model=4, n_heads=1, n_layers=2, n_slots=2, max_len=4, memory_attention=variant, gate=gate)
    memory = MemoryAttention(config).double()
    stm, event, rotation = torch.randn(2, 1, 2, 4).double(), torch.randn(2, 1, 3, 4).double(), Rope(config)(torch.arange(3))
    assert torch.autograd.gradcheck(lambda s, e: memory(s, e, rotation), (stm.requires_grad_(), event.requires_grad_()))


def test_gradients_of_a_decoder_layer_are_those_of_its_differences():
    for experts in (0, 3):
        config = ModelConfig(d_model=4, n_heads=1, d_ff=3, max_len=4, n_experts=experts, query_key_norm=True, attention_gate=True)
        layer = DecoderLayer(config, memory=True).double()
        rotation = Rope(config)(torch.arange(3))
        x, slots = torch.randn(1, 3, 4).double().requires_grad_(), torch.randn(1, 2, 4).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, s: layer(x, rotation, layer.read_slots(s)), (x, slots))
