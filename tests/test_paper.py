"""The published mathematics, once more and in one piece: plain functions over a dictionary of weights, in float64.

Nothing here imports a layer of the library. Whoever wants to copy weights into `RxT` finds the conventions
in this file as running code; the library must give the same logits, slots and gradients.
"""

import re
from dataclasses import replace

import pytest
import torch

import rxt_lite.models.rxt as rxt_module
from rxt_lite.config import (
    MICRO_26M,
    MINI_100M,
    NANO_12M,
    PAPER,
    PRESETS,
    SHAPE_1B,
    SHAPE_4B,
    SHAPE_270M,
    STATELESS_22M,
    ModelConfig,
)
from rxt_lite.experiments.cost import parameter_counts
from rxt_lite.models import DecoderLM, RxT

SMALL = ModelConfig(**PAPER, vocab_size=60, d_model=32, n_heads=4, n_layers=3, n_slots=5, d_ff=24, max_len=16,
                    self_heads=(2, 2), cross_heads=(4, 2), memory_heads=(2, 1), n_experts=5, experts_per_token=2, d_expert=12)


# --- the paper, in functions -----------------------------------------------------------------


def norm(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 2.0**-23).sqrt() * weight.reshape(-1)


def rope(x):
    """x (..., T, K): features (2i, 2i + 1) of the vector at position t turned by t * 10000^(-2i/K)."""
    T, K = x.shape[-2:]
    out = torch.empty_like(x)
    for i in range(K // 2):
        angle = torch.arange(T, dtype=x.dtype) * 10_000 ** (-2 * i / K)
        a, b = x[..., 2 * i], x[..., 2 * i + 1]
        out[..., 2 * i], out[..., 2 * i + 1] = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    return out


def attention(w, x, source, K, turn_q=False, turn_k=False, causal=False):
    """x (T, D) asks source (M, D); w(name) gives the weights."""
    heads = lambda t, name: (t @ w(f"to_{name}.weight").T).unflatten(-1, (-1, K)).transpose(0, 1)  # noqa: E731
    q, k, v = heads(x, "q"), heads(source, "k"), heads(source, "v")
    q, k = rope(q) if turn_q else q, rope(k) if turn_k else k
    if len(q) >= len(k):  # neighbouring query heads share keys and values
        k, v = (t.repeat_interleave(len(q) // len(t), 0) for t in (k, v))
    else:  # reverse: the queries are tiled
        q = q.repeat(len(k) // len(q), 1, 1)
    scores = q @ k.transpose(1, 2) / K**0.5
    if causal:
        scores = scores + torch.full_like(scores, -torch.inf).triu(1)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1) @ w("to_out.weight").T + w("to_out.bias").reshape(-1)


def feedforward(x, w_in, b_in, w_out, b_out):
    linear, gate = (x @ w_in.T + b_in.reshape(-1)).chunk(2, -1)
    return (linear * gate * gate.sigmoid()) @ w_out.T + b_out.reshape(-1)


def gate(w, old, new):
    g = torch.sigmoid((old + new).mean(-1) @ w("to_gate.weight").T + w("to_gate.bias").reshape(-1))[:, None]
    return g * new + (1 - g) * old


class Paper:
    """One conversation with weights `w`, a state_dict; the STM is a list of (S, D), one for each layer."""

    def __init__(self, w, config):
        self.w, self.c, self.K = w, config, config.d_model // config.n_heads

    def at(self, path, layer=None):
        return lambda name: self.w[f"{path}.{name}"] if layer is None else self.w[f"{path}.{name}"][layer]

    def experts(self, x, path):
        w, out = self.at(path), []
        for token in x:  # one token, one expert at a time
            p = (w("router.to_scores.weight") @ token).softmax(-1)
            best = p.argsort(descending=True)[: self.c.experts_per_token]
            ask = lambda e: feedforward(token, *(w(n)[e] for n in ("to_hidden.weight", "to_hidden.bias", "to_out.weight", "to_out.bias")))  # noqa: E731, B023
            out.append(sum(p[e] / p[best].sum() * ask(e) for e in best))
        return torch.stack(out)

    def encode(self, tokens):
        x, layers = self.w["embedding.weight"][tokens], []
        for i in range(self.c.n_layers):
            w = self.at(f"encoder.{i}")
            h = norm(x, w("norm_attention.weight"))
            x = x + attention(self.at(f"encoder.{i}.attention"), h, h, self.K, turn_q=True, turn_k=True)
            x = x + feedforward(norm(x, w("norm_feedforward.weight")), *(w(f"feedforward.to_{n}") for n in
                                ("hidden.weight", "hidden.bias", "out.weight", "out.bias")))
            layers.append(x)
        return layers

    def decode(self, tokens, stm):
        x = self.w["embedding.weight"][tokens]
        for i in range(self.c.n_layers):
            w = self.at(f"decoder.{i}")
            h = norm(x, w("norm_attention.weight"))
            x = x + attention(self.at(f"decoder.{i}.attention"), h, h, self.K, turn_q=True, turn_k=True, causal=True)
            x = x + attention(self.at(f"decoder.{i}.memory"), norm(x, w("norm_memory.weight")), norm(stm[i], w("norm_slots.weight")),
                              self.K, turn_q=True)
            x = x + self.experts(norm(x, w("norm_feedforward.weight")), f"decoder.{i}.feedforward")
        return x @ self.w["head.weight"].T + self.w["head.bias"]

    def write(self, stm, encoded):
        mean = norm(sum(stm) / len(stm), self.w["memory.norm_mean.weight"])
        new = []
        for i, (slots, event) in enumerate(zip(stm, encoded)):
            w = self.at("memory", i)
            h = norm(slots, w("norm_first.weight"))
            source = mean if self.c.memory_attention == "interlayer" else gate(self.at("memory.gate_mean", i), h, mean)
            x = gate(self.at("memory.gate_first", i), slots, attention(self.at("memory.attention_first", i), h, source, self.K))
            update = attention(self.at("memory.attention", i), norm(x, w("norm_stm.weight")), norm(event, w("norm_event.weight")),
                               self.K, turn_k=True)
            new.append(gate(self.at("memory.gate", i), x, update))
        return new


# --- the library says the same ---------------------------------------------------------------


@pytest.mark.parametrize("variant", ["interlayer", "self_interlayer"])
def test_the_library_computes_the_papers_logits_slots_and_gradients(variant):
    torch.manual_seed(0)
    config = replace(SMALL, memory_attention=variant)
    model = RxT(config)
    events = torch.randint(7, 60, (4, 9))
    start = model.init_state(1)

    weights = {name: w.detach().double().requires_grad_() for name, w in model.named_parameters()}
    paper, slots = Paper(weights, config), list(start[:, 0].double())
    for event in events[:3]:
        slots = paper.write(slots, paper.encode(event))
    expected = paper.decode(events[3], slots)

    stm = start
    for event in events[:3]:
        stm = model.remember(event[None], stm)
    got = model(events[3:], stm)
    close = lambda a, b, tol: torch.testing.assert_close(a.double(), b, atol=tol, rtol=tol)  # noqa: E731
    close(model.encode(events[:1])[:, 0], torch.stack(paper.encode(events[0])), 1e-5)
    close(stm[:, 0], torch.stack(slots), 1e-5)
    close(got[0], expected, 1e-5)

    expected.logsumexp(-1).sum().backward()
    got.logsumexp(-1).sum().backward()
    for name, p in model.named_parameters():
        assert weights[name].grad is not None, f"{name} has no part in the result"
        close(p.grad, weights[name].grad, 1e-4)


# --- names and sizes -------------------------------------------------------------------------

EVERYTHING = [
    SMALL,
    replace(SMALL, memory_attention="grouped", memory_groups=3, gate="elementwise", gate_statistic="learned", expert_bias="global"),
    replace(SMALL, shared_experts=2, slot_embeddings=True, initial_slots="learned", head_norm=True),
    replace(SMALL, query_key_norm=True, attention_gate=True),
    replace(SMALL, n_experts=0, d_expert=None, gate="slot", stateless_before=1, stateless_after=1),
    replace(SMALL, memory_attention="simple", gate="static"),
]


def documented() -> list[re.Pattern]:
    """The names in the table of the module's docstring, as patterns: i, l, j are numbers, {a,b} either, * anything."""
    patterns = []
    for name in re.findall(r"^    (\S*\w\.\S+|head\S+|initial_slots)  +", rxt_module.__doc__, re.MULTILINE):
        name = re.escape(name).replace(r"\*", ".*")
        name = re.sub(r"\\\{(.*?)\\\}", lambda m: "(?:" + m[1].replace(",", "|") + ")", name)
        patterns.append(re.compile(re.sub(r"(?<=\.)[ilj](?=\\\.)", r"\\d+", name)))
    return patterns


def test_every_weight_has_its_name_in_the_table_and_every_name_a_weight():
    names = {name for config in EVERYTHING for name in RxT(config).state_dict()}
    table = documented()
    assert [n for n in sorted(names) if not any(p.fullmatch(n) for p in table)] == []
    assert [p.pattern for p in table if not any(p.fullmatch(n) for n in names)] == []


PUBLISHED = [  # millions of parameters, to the digits that the cards give (reference: RxT-Alpha cards and file sizes)
    (RxT, NANO_12M, 11.73), (RxT, MICRO_26M, 26.86), (RxT, MINI_100M, 90.9), (DecoderLM, STATELESS_22M, 22.07),
    (RxT, SHAPE_270M, 270), (RxT, SHAPE_1B, 1000), (RxT, SHAPE_4B, 4000),
]


@pytest.mark.parametrize("kind, config, millions", PUBLISHED, ids=[str(m) for _, _, m in PUBLISHED])
def test_presets_have_the_published_sizes(kind, config, millions):
    total = parameter_counts(kind, config)["total"] / 1e6
    assert abs(total - millions) < (0.006 if millions < 30 else 0.06 if millions < 100 else 0.03 * millions)


@pytest.mark.parametrize("config, millions", [(NANO_12M, 3.5), (MICRO_26M, 6.5)], ids=str)
def test_what_a_token_passes_of_the_decoder_has_the_published_size(config, millions):
    """The cards count embedding, decoder and head."""
    with torch.device("meta"):
        model = RxT(config)
    writing = sum(p.numel() for part in (model.encoder, model.memory) for p in part.parameters())
    assert abs((parameter_counts(RxT, config)["active"] - writing) / 1e6 - millions) < 0.08


def test_every_preset_is_a_whole_model():
    for config in PRESETS.values():
        with torch.device("meta"):
            assert RxT(config).state_shape(1) == (config.n_layers, 1, config.n_slots, config.d_model)
