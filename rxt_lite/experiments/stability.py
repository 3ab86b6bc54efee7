"""What a memory looks like after very many events: does it stay finite, do its slots stay different?

Two conversations run side by side, one of random tokens and one that repeats a single event. Watched are

    norm     root mean square of the slots' entries
    cosine   mean cosine between two slots of a layer: 1 when all slots have become one
    rank     effective rank exp(- sum p_i log p_i), p the singular values of a layer's slots as shares of their sum:
             how many directions S slots use (Roy and Vetterli, EUSIPCO 2007)

each the mean over layers. An untrained memory is the harder case: nothing has taught it to keep slots apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from rxt_lite.config import GATES, MEMORY_ATTENTIONS, ModelConfig
from rxt_lite.models import RxT

TEXTS = ("random", "repeated")
EVENTS = (1, 2, 4, 10, 100, 1000, 10_000)


def every_memory(config: ModelConfig) -> Iterator[ModelConfig]:
    """`config` with every memory attention, gate and activation."""
    for variant in MEMORY_ATTENTIONS:
        for gate in GATES:
            for activation in ("sigmoid",) if gate in ("none", "replace") else ("sigmoid", "tanh"):
                yield replace(config, memory_attention=variant, gate=gate, gate_activation=activation)


def shape_of(stm: Tensor) -> list[dict[str, float]]:
    """{"norm", "cosine", "rank"} of each conversation in `stm` (L, B, S, D)."""
    S = stm.shape[2]
    size = stm.abs().amax((-1, -2), keepdim=True).clamp(min=1e-30)
    scaled = stm / size  # the squares of huge slots would overflow
    norm = size[..., 0, 0] * scaled.pow(2).mean((-1, -2)).sqrt()  # (L, B)
    unit = torch.nn.functional.normalize(scaled, dim=-1)
    cosine = ((unit @ unit.transpose(-1, -2)).sum((-1, -2)) - S) / max(1, S * (S - 1))
    shares = torch.linalg.svdvals(scaled.nan_to_num()) + 1e-30  # (L, B, S)
    shares = shares / shares.sum(-1, keepdim=True)
    rank = (-(shares * shares.log()).sum(-1)).exp()
    whole = [t.mean(0).tolist() for t in (norm, cosine, rank)]
    return [dict(zip(("norm", "cosine", "rank"), values)) for values in zip(*whole)]


@torch.no_grad()
def stability_rows(model: RxT, events: int = EVENTS[-1], tokens: int = 16, seed: int = 0) -> list[dict]:
    """Rows {"memory", "gate", "text", "event", "norm", "cosine", "rank"} of one model after 1, 2, 4, 10, ... events.

    A memory that stops being finite gets a last row at that event, with norm infinity and no cosine or rank.
    """
    c = model.config
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(7, c.vocab_size, (n, min(tokens, c.max_len)), generator=generator)  # noqa: E731
    torch.manual_seed(seed)
    repeated, stm, rows = draw(1), model.init_state(1).expand(-1, 2, -1, -1), []
    kind = {"memory": c.memory_attention, "gate": c.gate if c.gate in ("none", "replace") else f"{c.gate} {c.gate_activation}"}
    for event in range(1, events + 1):
        block = (event - 1) % 64
        if not block:  # the encoder reads 64 events at once; the memory takes them one by one
            texts = torch.stack([draw(64), repeated.expand(64, -1)], dim=1)  # (64, 2, T)
            encoded = model.encode(texts.flatten(0, 1)).unflatten(1, (64, 2))  # (L, 64, 2, T, D)
        stm = model.write(stm, encoded[:, block], texts[block])
        finite = stm.isfinite().all((0, 2, 3)).tolist()
        if event in EVENTS or event == events or not all(finite):
            for text, ok, shape in zip(TEXTS, finite, shape_of(stm)):
                shape = shape if ok else {"norm": float("inf"), "cosine": None, "rank": None}
                rows.append({**kind, "text": text, "event": event, **shape})
        if not all(finite):
            break
    return rows


def stability_table(config: ModelConfig, events: int = EVENTS[-1], seeds: Sequence[int] = (0,)) -> list[dict]:
    """`stability_rows` of untrained models with every memory attention and gate; each row says its seed."""
    rows, memories = [], list(every_memory(config))
    for seed in seeds:
        for memory in tqdm(memories, desc=f"seed {seed}"):
            torch.manual_seed(seed)
            rows += [{"seed": seed, **row} for row in stability_rows(RxT(memory).eval(), events, seed=seed)]
    return rows


def over_time(rows: list[dict]) -> list[dict]:
    """The same rows for reading: a line for each memory and text, "norm / cosine / rank" under the number of events."""
    lines: dict[tuple, dict] = {}
    shown = sorted({row["event"] for row in rows} & set(EVENTS)) or [rows[-1]["event"]]
    for row in rows:
        key = tuple(row[name] for name in ("seed", "memory", "gate", "text"))
        line = lines.setdefault(key, {"memory": f"{row['memory']}, {row['gate']}", "text": row["text"], **{str(e): "" for e in shown}})
        if row["cosine"] is None:
            line |= {str(e): f"overflow at {row['event']}" for e in shown if e >= row["event"]}
        elif str(row["event"]) in line:
            line[str(row["event"])] = f"{row['norm']:.2g} / {row['cosine']:.2f} / {row['rank']:.1f}"
    return list(lines.values())
