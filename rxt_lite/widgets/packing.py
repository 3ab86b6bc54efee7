"""Arrays for a page: two bytes a number with one scale, as base64. A picture needs no more."""

import base64

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rxt_lite.data.tokenizer import decode
from rxt_lite.experiments.trace import Trace


def packed(values: Tensor) -> dict:
    """{"scale", "data"}: scale is the largest size, whole numbers from -32767 to 32767 are parts of it; off by scale / 65534 at most."""
    scale = values.abs().max().item() or 1.0
    whole = (values / scale * 32767).round().to(torch.int16).numpy().astype("<i2")
    return {"scale": scale, "data": base64.b64encode(whole.tobytes()).decode()}


def labels(tokens: Tensor, tokenizer: Tokenizer) -> list[str]:
    """Each token (T) as a word to write beside a row."""
    return [tokenizer.decode([t], skip_special_tokens=False).strip() or "␣" for t in tokens.tolist()]


def packed_trace(trace: Trace, tokenizer: Tokenizer) -> dict:
    """A recorded conversation for `unpackedTrace` in js/packed.mjs."""
    events = []
    for n, tokens in enumerate(trace.tokens):
        event = {"label": decode(tokenizer, tokens.tolist()), "labels": labels(tokens, tokenizer), "memory": packed(trace.slots[n + 1]),
                 "gate": None if trace.gate is None else packed(trace.gate[n])}
        events.append({**event, "write": packed(trace.write[n]), "read": packed(trace.read[n])})
    shape = dict(zip(("n_layers", "n_slots", "d_model"), trace.slots.shape[1:]))
    return {"config": shape, "start": packed(trace.slots[0]), "events": events}
