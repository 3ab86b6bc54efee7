"""How fast the library is, side by side in one run: against the same mathematics written plainly, and against PyTorch's own layers.

    ours    the library as it is
    plain   the same weights and the same results by the textbook: a loop over layers, softmax written out, rotary
            positions from sines and cosines, keys and values of the slots made anew for every token
    torch   `nn.TransformerDecoderLayer`, `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` of the same size:
            other mathematics (no rotary positions, no gated feed-forward), a floor for what PyTorch's own code takes

Five tasks: `decoder`, a forward and a backward pass over 16 sequences of 128 tokens; `training`, a whole step on 16
dialogues of 3 events; `update`, one event of 97 tokens folded into a memory; `first token` of the answer to 32 tokens;
`generation` of the 64 tokens after it in one conversation.

With `bf16` ours and torch run in bfloat16, and the plain loop stays in float32, as does the reader's first version.

Machines are noisy, so the arms take turns within every round, and a ratio is the median over rounds of ratios taken
a moment apart. `share` asks how much of a task's time its matrix products would take alone: `products` are ours, the
same products of the same shapes, back to back in the same round. What they take is the least that PyTorch can. The
decoder's multiply-adds are counted in `cost.py`, a backward pass as two forward passes. `square`, a 1024 x 1024 product,
tells the machine: thin products, such as those with one head's K columns or a single token's row, never reach its rate.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from rxt_lite.config import NANO_12M, ModelConfig
from rxt_lite.experiments.cost import decode_macs
from rxt_lite.models import RxT
from rxt_lite.training.surprise import head_surprise

EXPERTS = {"n_experts": 12, "experts_per_token": 2, "d_expert": 256}
D128 = ModelConfig(vocab_size=5000, d_model=128, n_heads=4, n_layers=4, n_slots=64, d_ff=384, max_len=256)
SIZES = {"d128": D128, "d128_experts": replace(D128, **EXPERTS), "nano_12m": NANO_12M}
EVENT, QUERY, ANSWER = 97, 32, 64  # tokens of an event that is remembered, of a query, of an answer


# --- the same mathematics, plainly -----------------------------------------------------------


class Arm:
    """What has a `say` can answer."""

    def answer(self, query: Tensor, stm: Tensor, n: int) -> Tensor:
        return torch.cat(list(self.say(query, stm, n)), dim=1)


class Plain(Arm):
    """What `model` computes, by the textbook, from its own weights; a test holds the two equal."""

    def __init__(self, model: RxT):
        self.model = model

    @staticmethod
    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 2.0**-23).sqrt() * weight.flatten()

    @staticmethod
    def rope(x: Tensor, start: int) -> Tensor:
        """x (B, H, T, K) at positions start, start + 1, ..."""
        T, K = x.shape[-2:]
        angle = torch.outer(torch.arange(start, start + T, device=x.device), 10_000 ** -(torch.arange(0, K, 2, device=x.device) / K))
        x1, x2, cos, sin = x[..., 0::2], x[..., 1::2], angle.cos(), angle.sin()
        return torch.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], dim=-1).flatten(-2)

    def attention(self, w: dict, x: Tensor, source: Tensor, *, turn_q=None, turn_k=None, causal=False, past=None) -> Tensor:
        heads = lambda t, name: F.linear(t, w[f"to_{name}.weight"]).unflatten(-1, (-1, self.model.config.d_head)).transpose(1, 2)  # noqa: E731
        q, k, v = heads(x, "q"), heads(source, "k"), heads(source, "v")  # (B, H, T, K)
        q, k = q if turn_q is None else self.rope(q, turn_q), k if turn_k is None else self.rope(k, turn_k)
        if past is not None:
            k, v = past[:] = [torch.cat([old, new], dim=2) for old, new in zip(past, (k, v))] if past else [k, v]
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if causal and q.shape[2] > 1:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf, device=x.device).triu(1)
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return F.linear(out, w["to_out.weight"], w["to_out.bias"].flatten())

    def feedforward(self, layer: nn.Module, x: Tensor) -> Tensor:
        ff = layer.feedforward
        gated = lambda x, w1, b1, w2, b2: F.linear(self.swiglu(F.linear(x, w1, b1)), w2, b2)  # noqa: E731
        if not hasattr(ff, "router"):
            return gated(x, ff.to_hidden.weight, ff.to_hidden.bias, ff.to_out.weight, ff.to_out.bias)
        p = F.linear(x, ff.router.to_scores.weight).softmax(-1)
        best, chosen = p.topk(ff.router.k, dim=-1)
        y = torch.zeros_like(x)
        for e in range(p.shape[-1]):  # every token asks every expert; most answers are weighed by 0
            weight = (best * (chosen == e)).sum(-1, keepdim=True) / best.sum(-1, keepdim=True)
            y = y + weight * gated(x, ff.to_hidden.weight[e], ff.to_hidden.bias[e, 0], ff.to_out.weight[e], ff.to_out.bias[e, 0])
        return y

    @staticmethod
    def swiglu(hidden: Tensor) -> Tensor:
        linear, gate = hidden.chunk(2, dim=-1)
        return linear * gate * gate.sigmoid()

    @staticmethod
    def weights(module: nn.Module, layer: int | None = None) -> dict[str, Tensor]:
        return {name: p if layer is None else p[layer] for name, p in module.named_parameters()}

    def encode(self, tokens: Tensor) -> list[Tensor]:
        x, layers = self.model.embedding(tokens), []
        for layer in self.model.encoder:
            h = self.norm(x, layer.norm_attention.weight)
            x = x + self.attention(self.weights(layer.attention), h, h, turn_q=0, turn_k=0)
            x = x + self.feedforward(layer, self.norm(x, layer.norm_feedforward.weight))
            layers.append(x)
        return layers

    def decode(self, tokens: Tensor, stm: Tensor, start: int = 0, past: list[list] | None = None) -> Tensor:
        x = self.model.embedding(tokens)
        for i, (layer, slots) in enumerate(zip(self.model.decoder, stm)):
            h = self.norm(x, layer.norm_attention.weight)
            x = x + self.attention(self.weights(layer.attention), h, h, turn_q=start, turn_k=start, causal=True, past=past and past[i])
            slots = self.norm(slots, layer.norm_slots.weight)
            x = x + self.attention(self.weights(layer.memory), self.norm(x, layer.norm_memory.weight), slots, turn_q=start)
            x = x + self.feedforward(layer, self.norm(x, layer.norm_feedforward.weight))
        return self.model.head(self.model.norm_head(x))

    def gate(self, gate: nn.Module, layer: int, old: Tensor, new: Tensor) -> Tensor:
        w = self.weights(gate, layer)
        kind = gate.kind
        seen = torch.cat([old, new], dim=-1) if kind == "slot" else (old + new).mean(-1)
        g = torch.sigmoid(F.linear(seen, w["to_gate.weight"], w["to_gate.bias"].flatten()))
        g = g if kind == "slot" else g.unsqueeze(-1)
        return g * new + (1 - g) * old

    def write(self, stm: Tensor, encoded: list[Tensor]) -> Tensor:
        memory, new = self.model.memory, []
        for i, (slots, event) in enumerate(zip(stm, encoded)):
            if memory.variant == "interlayer":
                mean = self.norm(stm.mean(0), memory.norm_mean.weight)
                first = self.attention(self.weights(memory.attention_first, i), self.norm(slots, memory.norm_first.weight[i]), mean)
                slots = self.gate(memory.gate_first, i, slots, first)
            asking = self.norm(slots, memory.norm_stm.weight[i]) + (0 if memory.names is None else memory.names[i])
            event = self.norm(event, memory.norm_event.weight[i])
            new.append(self.gate(memory.gate, i, slots, self.attention(self.weights(memory.attention, i), asking, event, turn_k=0)))
        return torch.stack(new)

    def remember(self, tokens: Tensor, stm: Tensor) -> Tensor:
        return self.write(stm, self.encode(tokens))

    def say(self, query: Tensor, stm: Tensor, n: int) -> Iterator[Tensor]:
        """Greedy, `n` tokens, whatever they are: (B, 1) each."""
        past, tokens, start = [[] for _ in self.model.decoder], query, 0
        for _ in range(n):
            token = self.decode(tokens, stm, start, past)[:, -1:].argmax(-1)
            yield token
            tokens, start = token, start + tokens.shape[1]


class Ours(Arm):
    """The library behind the same calls."""

    def __init__(self, model: RxT):
        self.model = model

    def decode(self, tokens: Tensor, stm: Tensor) -> Tensor:
        return self.model(tokens, stm)

    def remember(self, tokens: Tensor, stm: Tensor) -> Tensor:
        return self.model.remember(tokens, stm)

    def say(self, query: Tensor, stm: Tensor, n: int) -> Iterator[Tensor]:
        cache, tokens = self.model.open(stm, query.shape[1] + n), query
        for _ in range(n):
            tokens = self.model.extend(tokens, cache)[:, -1:].argmax(-1)
            yield tokens


class Torch(nn.Module):
    """PyTorch's layers of the same size; 3/2 F makes its feed-forward as large as a gated one. Says tokens without a cache's help."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.experts_per_token * (config.d_expert or config.d_ff) if config.n_experts else config.d_ff
        how = {"batch_first": True, "norm_first": True, "dropout": 0.0}
        decoder = nn.TransformerDecoderLayer(config.d_model, config.n_heads, 3 * width // 2, **how)
        encoder = nn.TransformerEncoderLayer(config.d_model, config.n_heads, 3 * config.d_ff // 2, **how)
        self.embedding, self.head = nn.Embedding(config.vocab_size, config.d_model), nn.Linear(config.d_model, config.vocab_size)
        self.decoder = nn.TransformerDecoder(decoder, config.n_layers)
        self.encoder = nn.TransformerEncoder(encoder, config.n_layers, enable_nested_tensor=False)
        self.memory = nn.ModuleList(nn.MultiheadAttention(config.d_model, config.n_heads, batch_first=True) for _ in range(config.n_layers))

    def decode(self, tokens: Tensor, stm: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        return self.head(self.decoder(self.embedding(tokens), stm[-1], tgt_mask=mask, tgt_is_causal=True))

    def remember(self, tokens: Tensor, stm: Tensor) -> Tensor:
        event = self.encoder(self.embedding(tokens))
        return torch.stack([slots + layer(slots, event, event, need_weights=False)[0] for layer, slots in zip(self.memory, stm)])


class Products(TorchDispatchMode):
    """Notes the operands of every matrix product that runs inside; called afterwards, it runs the products alone.

    Attention is one operation and two products, and its backward pass, where there is one, four more of the same sizes.
    """

    def __init__(self):
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            self.pairs.append(tuple(t.detach() for t in args[-2:]))
        elif name == "linear":  # in inference mode it arrives whole
            self.pairs.append((args[0], args[1].mT))
        elif "scaled_dot_product" in name and "backward" not in name:
            q, k, v = (t.detach() for t in args[:3])
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
            weights = torch.rand_like(k[..., :1]).mT.expand(*q.shape[:3], -1).contiguous()
            self.pairs += (3 if torch.is_grad_enabled() else 1) * [(q, k.transpose(-1, -2)), (weights, v)]
        return func(*args, **(kwargs or {}))

    @property
    def macs(self) -> int:
        return sum(a.numel() * b.shape[-1] for a, b in self.pairs)

    def __call__(self) -> None:
        for a, b in self.pairs:
            torch.matmul(a, b)

    @classmethod
    def of(cls, work: Callable[[], object]) -> "Products":
        """Those of `work`, which runs as plain code: what is compiled in here would stay uncompiled for good."""
        with torch.compiler.set_stance("force_eager"), cls() as products:
            work()
        return products


# --- what is timed ---------------------------------------------------------------------------


Work = Callable[[], object]


def ready(work: Work) -> Callable[[], Work]:
    """Work with nothing to prepare."""
    return lambda: work


def rounds_of(works: dict[str, Callable[[], Work]], rounds: int, sync: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of each piece of work in every round, without what is done to prepare it.

    The pieces take turns, and one unmeasured round goes before.
    """
    seconds = {name: [] for name in works}
    for n in range(rounds + 1):
        for name, prepare in works.items():
            work = prepare()
            sync()
            started = time.perf_counter()
            work()
            sync()
            if n:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def tasks(model: RxT, bf16: bool, compiled: bool) -> Iterator[tuple[str, str, Callable[[float], float], dict[str, Callable[[], Work]]]]:
    """(task, unit, seconds -> value, {arm: what prepares its work}) for everything that is timed."""
    c, device = model.config, model.device
    arms = {"ours": Ours(model), "plain": Plain(model), "torch": Torch(c).to(device).eval()}
    draw = lambda *shape: torch.randint(7, c.vocab_size, shape, device=device)  # noqa: E731
    autocast = lambda arm: nullcontext() if not bf16 or isinstance(arm, Plain) else torch.autocast(device.type, torch.bfloat16)  # noqa: E731

    def no_grad(arm, work):
        def quietly():
            with torch.inference_mode(), autocast(arm):
                return work(arm)
        return quietly

    B, T, N = 16, 128, 3
    tokens, events, stm = draw(B, T), draw(B, N, EVENT), model.init_state(B).detach()
    upstream = torch.randn(B, T, c.vocab_size, device=device)

    def forward_backward(arm):
        with autocast(arm):
            logits = arm.decode(tokens, stm)
        logits.backward(upstream.to(logits.dtype))

    counted, wanted = torch.ones(B, N, EVENT, dtype=torch.bool, device=device), events[:, :, 1:].flatten()
    counted[:, :, -1] = False  # nothing follows the last token

    def train(arm, optimizer):
        with autocast(arm):
            if isinstance(arm, Ours):
                loss = head_surprise(model.head, model.last_of_dialogue(events, counted), wanted)
            else:
                state, parts = stm, []
                for n in range(N):
                    parts.append(arm.decode(events[:, n], state))
                    state = arm.remember(events[:, n], state)
                loss = F.cross_entropy(torch.stack(parts, dim=1)[:, :, :-1].flatten(0, 2).float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    left, right = torch.randn(2, 1024, 1024, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    slots = 2 * c.n_layers * B * c.n_slots * c.heads("cross")[1] * c.d_head * c.d_model
    macs = 3 * (B * decode_macs(c, T, 0, slots=True) + slots)
    works = {name: ready(lambda arm=arm: forward_backward(arm)) for name, arm in arms.items()}
    yield "decoder", "GF/s", lambda s: 2 * macs / s / 1e9, works | {"square": ready(lambda: left @ right)}
    optimizers = {name: torch.optim.AdamW((arm if name == "torch" else model).parameters(), lr=0.0) for name, arm in arms.items()}
    works = {name: ready(lambda arm=arm, optimizer=optimizers[name]: train(arm, optimizer)) for name, arm in arms.items()}
    yield "training", "tokens/s", lambda s: B * N * EVENT / s, works
    one, event, query = model.init_state(1).detach(), draw(1, EVENT), draw(1, QUERY)
    yield "update", "ms", lambda s: 1e3 * s, {
        name: ready(no_grad(arm, lambda arm: arm.remember(event, one))) for name, arm in arms.items()}
    talking = {name: arm for name, arm in arms.items() if name != "torch"}
    yield "first token", "ms", lambda s: 1e3 * s, {
        name: ready(no_grad(arm, lambda arm: arm.answer(query, one, 1))) for name, arm in talking.items()} | {
        "torch": ready(no_grad(arms["torch"], lambda arm: arm.decode(query, one)[:, -1].argmax(-1)))}

    def after_the_first(arm):
        said = arm.say(query, one, 1 + ANSWER)
        no_grad(arm, lambda _: next(said))()
        return no_grad(arm, lambda _: list(said))

    yield "generation", "tokens/s", lambda s: ANSWER / s, {name: lambda arm=arm: after_the_first(arm) for name, arm in talking.items()}


def of_the_event(entries: list) -> list[bool]:
    """Of all that code for one token was compiled for, what is checked before every call: what an event brings, not what is the model's."""
    named = ("x", "rotation", "used", "one.layers[0].store")
    return [entry.guard_type in ("SHAPE_ENV", "GLOBAL_STATE", "GRAD_MODE") or entry.name in named for entry in entries]


def compile_layers(model: RxT) -> RxT:
    """Let `torch.compile` fuse all decoder layers into one step, those for one token and the head too, each encoder layer
    and the memory attention, in place.

    The results stay the same to rounding. A step is compiled once for each kind of call, whatever the length of the
    cache; before every call the compiled code checks tensors only, not each module: a part must not be exchanged afterwards.
    """
    if " " in torch.__file__:
        raise ValueError(f"torch.compile cannot link against {torch.__file__}: there is a space in its path; move the environment")
    def apart(function: Callable, place: int, **options) -> Callable:  # its argument `place` as cosines and sines
        how = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe, "cpp_wrapper": True}  # no Python between products
        fused = torch.compile(function, options=how | options)
        return lambda *args: fused(*args[:place], torch.view_as_real(args[place]), *args[place + 1 :])

    model.encoded, model.memory.forward = apart(model.encoded, 1), apart(model.memory.forward, 2)
    model.hidden, model.next_logits = apart(model.hidden, 1), apart(model.next_logits, 2, guard_filter_fn=of_the_event)
    return model


def speed_rows(size: str, *, rounds: int = 7, bf16: bool = False, compiled: bool = False, device: str = "cpu", seed: int = 0) -> list[dict]:
    """Rows {"size", "task", "arm", "value", "unit", "low", "high", "over_plain", "share"}: medians, smallest and largest of the rounds.

    over_plain   how many times as fast as the plain loop, the median of paired ratios
    share        of ours and plain: the time of our products alone over its own, the median of paired ratios
    """
    if size not in SIZES:
        raise ValueError(f"size {size!r} is not known; choose one of {', '.join(SIZES)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not there; this PyTorch sees the CPU only")
    torch.manual_seed(seed)
    model = RxT(SIZES[size]).to(device).eval()
    if compiled:
        compile_layers(model)
    sync = torch.cuda.synchronize if device != "cpu" else lambda: None
    rows = []
    for task, unit, value, works in tqdm(list(tasks(model, bf16, compiled)), desc=size):
        seconds = rounds_of(works | {"products": ready(Products.of(works["ours"]()))}, rounds, sync)
        for arm, times in seconds.items():
            rates = [2 * 1024**3 / s / 1e9 if arm == "square" else value(s) for s in times]
            paired = [p / s for p, s in zip(seconds["plain"], times)]
            row = {"size": size, "task": task, "arm": arm, "value": statistics.median(rates), "unit": unit, "low": min(rates)}
            row |= {"high": max(rates), "over_plain": None if arm in ("products", "square") else statistics.median(paired), "share": None}
            if arm in ("ours", "plain"):
                row["share"] = statistics.median(alone / s for alone, s in zip(seconds["products"], times))
            rows.append(row)
    return rows
