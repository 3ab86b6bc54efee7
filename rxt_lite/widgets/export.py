"""A trained RxT for the browser: weights in half precision, tokenizer, shape, and what PyTorch says with the same weights.

    export_web(checkpoint, out)

    config.json              shape and card of the model, which file holds the weights, the sentences of the small world
    tokenizer.json           the file that Python reads
    model.<hash>.safetensors float16; the name changes with the content, so that no cache serves an old one
    reference.json           a conversation of 12 events: queries, greedy answers, how close the closest choice was
    reference.safetensors    memory (13, L, S, D) before it and after each event, gate (12, L, S)

The reference is computed with the weights as they were rounded for the file, so the two sides compute the same model
and may differ only by the order of their sums. The engine (js/rxt.mjs) is written for the models of this book: `PROFILE`
lists the settings it knows, and any number of layers, slots, heads, widths and words goes with them.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from rxt_lite.data.tokenizer import decode, encode_query, load_tokenizer
from rxt_lite.data.world import ATTRIBUTES, REFUSAL
from rxt_lite.experiments.trace import Trace, record
from rxt_lite.models import RxT
from rxt_lite.models.base import EventModel, join
from rxt_lite.models.checkpoint import load, read_card
from rxt_lite.models.generate import converse
from rxt_lite.models.memory_file import identity

FORMAT = 1
ANSWER = 12  # tokens an answer may have, as in the experiments on recall

# The settings that decide which formulas the engine must know, and the values for which it knows them.
PROFILE = {
    "memory_attention": "simple",
    "gate": "slot",
    "gate_activation": "sigmoid",
    "initial_slots": "learned",
    "n_experts": 0,
    "query_key_norm": False,
    "attention_gate": False,
}

# What is on the page before anything is loaded: told, changed, asked, and asked though never told.
PREPARED = (
    "Tom has the hat.",
    "The ball is in the garden.",
    "Lily likes plums.",
    "Who has the hat?",
    "It is raining again.",
    "Where is the ball?",
    "Now Ben has the hat.",
    "Lily has a parrot.",
    "Who has the hat?",
    "What food does Lily like?",
    "What pet does Lily have?",
    "Where is the kite?",
)


@dataclass(frozen=True)
class Reference:
    """A conversation as PyTorch computes it: `queries` with their `answers`, and the trace of the memory."""

    queries: tuple[str, ...]
    answers: tuple[list[int], ...]
    trace: Trace


def check_profile(model: EventModel) -> None:
    """One sentence that names the setting which keeps this model out of the browser."""
    if not isinstance(model, RxT):
        raise ValueError(f"the model is a {type(model).__name__}; the browser engine computes RxT models only")
    for name, known in PROFILE.items():
        value = getattr(model.config, name)
        if value != known:
            raise ValueError(f"{name}={value!r} is not known to the browser engine, which computes {name}={known!r}; "
                             "train a model with that setting, or add the formula to rxt_lite/widgets/js/rxt.mjs")


def rounded(model: RxT) -> RxT:
    """A copy of `model` with the weights that float16 can hold, computing in double precision, as the engine of the page does."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the angles of the positions as well
    try:
        twin = RxT(model.config)
    finally:
        torch.set_default_dtype(usual)
    twin.load_state_dict({name: w.half().double() for name, w in model.state_dict().items()})
    return twin.eval()


@torch.no_grad()
def reference(model: RxT, tokenizer: Tokenizer, queries: Sequence[str] = PREPARED) -> Reference:
    """Let `model` answer `queries` greedily, one after the other, and record its memory."""
    prompts = [torch.tensor([encode_query(tokenizer, query)]) for query in queries]
    answers = list(converse(model, prompts, ANSWER))
    trace = record(model, [join(prompt, answer) for prompt, answer in zip(prompts, answers)])
    return Reference(tuple(queries), tuple(answer[0].tolist() for answer in answers), trace)


@torch.no_grad()
def margins(model: RxT, trace: Trace, answers: Sequence[list[int]]) -> list[float]:
    """By how much the chosen token led the next best, at the closest choice of each answer."""
    smallest = []
    for tokens, stm, answer in zip(trace.tokens, trace.slots, answers):
        logits = model(tokens[None], stm[:, None])[0, len(tokens) - len(answer) - 1 : -1]  # (answer, V)
        best, second = logits.topk(2).values.unbind(-1)
        smallest.append((best - second).min().item())
    return smallest


def world() -> dict:
    """The sentences of the small world, for pages that find told facts and ask for them."""
    keep = ("entities", "values", "tell", "change", "ask", "answer")
    return {"refusal": REFUSAL, "attributes": {name: {k: asdict(a)[k] for k in keep} for name, a in ATTRIBUTES.items()}}


def export_web(checkpoint: Path | str, out: Path | str) -> list[Path]:
    """Write the model saved in `checkpoint` into the folder `out`, for the live page; returns the files written."""
    checkpoint, out = Path(checkpoint), Path(out)
    model, tokenizer, about = load(checkpoint), load_tokenizer(checkpoint / "tokenizer.json"), read_card(checkpoint)
    check_profile(model)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("model.*.safetensors"):
        old.unlink()
    weights, twin = write_weights(model, out), rounded(model)
    about = {**description(twin), "card": about["card"], "weights": {"file": weights.name, "bytes": weights.stat().st_size}}
    written = [weights, write_json(about, out / "config.json"), Path(shutil.copy(checkpoint / "tokenizer.json", out))]
    written += write_reference(twin, tokenizer, out)
    for file in written:  # safetensors are written for their owner alone; a web server is somebody else
        file.chmod(0o644)
    return written


def description(model: RxT) -> dict:
    """What the front end must know of a model, beside its weights. `identity` goes into the files of its memories."""
    return {"format": FORMAT, "model": "RxT", "config": asdict(model.config), "answer_tokens": ANSWER, "world": world(),
            "identity": identity(model)}


def write_weights(model: RxT, out: Path) -> Path:
    unnamed = out / "model.safetensors"
    save_file({name: w.detach().half().contiguous() for name, w in model.state_dict().items()}, unnamed)
    return unnamed.rename(out / f"model.{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:12]}.safetensors")


def write_reference(model: RxT, tokenizer: Tokenizer, out: Path) -> list[Path]:
    said = reference(model, tokenizer)
    each = zip(said.queries, said.answers, said.trace.tokens, margins(model, said.trace, said.answers))
    turns = [{"query": query, "answer": decode(tokenizer, answer), "ids": answer, "event": event.tolist(), "margin": margin}
             for query, answer, event, margin in each]
    save_file({"memory": said.trace.slots.float(), "gate": said.trace.gate.float()}, out / "reference.safetensors")
    return [write_json(turns, out / "reference.json"), out / "reference.safetensors"]


def write_json(value, path: Path) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
