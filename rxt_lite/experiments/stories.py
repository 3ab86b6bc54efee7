"""Real stories told chunk by chunk: how many bits a model needs, and what its memory saves.

    bits per byte = sum of -log2 p over the answer tokens / bytes of the answers

Bits per byte do not depend on the tokenizer. `[EOS]` is paid for and counts no byte. On "What happened
next?" many answers are right, so losses are compared there, with the memory on, reset, swapped, and that of the
last event only, never exact matches.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tqdm import tqdm

from rxt_lite.config import ModelConfig
from rxt_lite.data.batches import fits, make_batch
from rxt_lite.data.dialogues import Dialogue
from rxt_lite.data.stories import load_stories, story_split, story_to_dialogue
from rxt_lite.data.tokenizer import encode_event, train_tokenizer
from rxt_lite.experiments.recall import ARMS, Arm, memory_on
from rxt_lite.models.base import EventModel
from rxt_lite.training.recipes import train_on_dialogues


@torch.no_grad()
def score_answers(model: EventModel, dialogues: Sequence[Dialogue], tokenizer: Tokenizer, arm: Arm = memory_on, *,
                  batch_size: int = 16) -> tuple[list[list[float]], list[list[bool]]]:
    """For each true answer the bits that the model needs for it, and whether each of its tokens is the likeliest: lists of events
    per dialogue, given the true tokens before each. `arm` decides which memory is read (see `recall.py`), never which is carried on.
    """
    bits, right = [], []
    for first in range(0, len(dialogues), batch_size):
        some = dialogues[first : first + batch_size]
        batch = make_batch(some, tokenizer, max_event_len=model.config.max_len).to(model.device)
        state, last, of_batch = model.init_state(len(some)), None, []
        for tokens, is_answer in zip(batch.tokens.unbind(1), batch.is_answer[:, :, 1:].unbind(1)):
            logits = model(tokens, arm(model, state, last))[:, :-1].float()
            nll = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")  # (B, T - 1)
            wrong = (is_answer & (logits.argmax(-1) != tokens[:, 1:])).any(1)
            of_batch.append(torch.stack([(nll * is_answer).sum(1) / math.log(2), (~wrong).float()]))  # (2, B)
            state, last = model.remember(tokens, state), tokens
        for n, row in enumerate(torch.stack(of_batch, dim=-1).unbind(1)):  # (2, N) for each dialogue
            bits.append(row[0, : len(some[n].events)].tolist())
            right.append(row[1, : len(some[n].events)].bool().tolist())
    return bits, right


def unigram_bits(train: Sequence[Dialogue], valid: Sequence[Dialogue], tokenizer) -> list[list[float]]:
    """The same for a model that knows only how often each token occurs in the training answers (plus one each)."""
    answer_ids = lambda event: encode_event(tokenizer, "?", event.answer)[len(encode_event(tokenizer, "?", "")) - 1 :]  # noqa: E731
    counts = Counter(token for d in train for event in d.events for token in answer_ids(event))
    total = sum(counts.values()) + tokenizer.get_vocab_size()
    return [[sum(-math.log2((counts[token] + 1) / total) for token in answer_ids(event)) for event in d.events] for d in valid]


def story_rows(model: EventModel, train: Sequence[Dialogue], valid: Sequence[Dialogue], tokenizer, *, seed: int) -> list[dict]:
    """Rows {"arm", "turns", "bits_per_byte", "low", "high", "n", "seed"} on held-out stories.

    arm         those of `recall.py`: memory_on, memory_reset, memory_swapped, last_event_only; unigram; and
                memory_gain = reset minus on, story by story
    turns       "all" answers, or those to "What happened next?"
    low, high   95 % interval of the mean over stories (normal approximation over n dialogues)
    """
    arms = {arm.__name__: score_answers(model, valid, tokenizer, arm)[0] for arm in ARMS}
    arms["unigram"] = unigram_bits(train, valid, tokenizer)
    rows = []
    for turns in ("all", "next"):
        size = answer_bytes(valid, turns)
        total = {arm: of_turns(bits, valid, turns) for arm, bits in arms.items()}
        total["memory_gain"] = [reset - on for reset, on in zip(total["memory_reset"], total["memory_on"])]
        for arm, bits in total.items():
            rows.append({"arm": arm, "turns": turns, **per_byte(bits, size), "seed": seed})
    return rows


def turns_of(dialogue: Dialogue, turns: str) -> Sequence[int]:
    """Which of its turns: "all", or those that ask "next" or "recall"."""
    return range(len(dialogue.events)) if turns == "all" else [p.turn for p in dialogue.probes if p.kind == turns]


def of_turns(values: Sequence[Sequence[float]], dialogues: Sequence[Dialogue], turns: str) -> list[float]:
    """A value for each event of each dialogue, added up per dialogue over the turns that `turns_of` names."""
    return [sum(of[n] for n in turns_of(dialogue, turns)) for of, dialogue in zip(values, dialogues)]


def answer_bytes(dialogues: Sequence[Dialogue], turns: str) -> list[int]:
    return of_turns([[len(event.answer.encode()) for event in d.events] for d in dialogues], dialogues, turns)


def per_byte(bits: Sequence[float], size: Sequence[int]) -> dict:
    """{"bits_per_byte", "low", "high", "n"}: see `ratio_interval`."""
    mean, half = ratio_interval(bits, size)
    return {"bits_per_byte": mean, "low": mean - half, "high": mean + half, "n": len(bits)}


def ratio_interval(bits: Sequence[float], size: Sequence[int], z: float = 1.959964) -> tuple[float, float]:
    """Sum of bits over sum of bytes, and half the width of its 95 % interval (dialogues are the independent units)."""
    n, ratio = len(bits), sum(bits) / sum(size)
    if n < 2:
        return ratio, math.inf
    spread = sum((b - ratio * s) ** 2 for b, s in zip(bits, size)) / (n - 1)
    return ratio, z * math.sqrt(spread / n) / (sum(size) / n)


def split_stories(source: str, config: ModelConfig, *, limit: int | None = None) -> tuple[Tokenizer, list[Dialogue], list[Dialogue]]:
    """Real stories as dialogues: a tokenizer trained on those to train on, these, and those held out, of events that fit.

    One story in twenty is held out, by the hash of its words.
    """
    dialogues = {"train": [], "valid": []}
    for story in tqdm(load_stories(source, limit=limit), desc="stories to dialogues"):
        dialogues[story_split(story)].append(story_to_dialogue(story, chunks=8, max_words=32))
    if not dialogues["train"] or len(dialogues["valid"]) < 2:
        raise ValueError(
            f"{source} gives {len(dialogues['train'])} stories to train on and {len(dialogues['valid'])} held out "
            "(one in twenty, by hash); training needs at least 1 and 2, so give a larger file"
        )
    texts = (text for d in dialogues["train"] for event in d.events for text in (event.query, event.answer))
    tokenizer = train_tokenizer(texts, config.vocab_size)
    return tokenizer, *([d for d in dialogues[split] if fits(d, tokenizer, config.max_len)] for split in ("train", "valid"))


def stories_run(run: Path | str, source: str, *, limit: int | None = None, kinds: tuple[str, ...] = ("rxt",), **how) -> list[dict]:
    """Train on real stories and report on the held-out ones: rows of `story_rows`. `how` goes to `train_on_dialogues`."""
    config = how["config"]
    tokenizer, train, valid = split_stories(source, config, limit=limit)
    rows = []
    for kind in kinds:
        model, _ = train_on_dialogues(run, train, tokenizer, kind=kind, name=f"stories of {source}", valid=valid[:256], **how)
        rows += [{"model": kind, **row} for row in story_rows(model, train, valid[:256], tokenizer, seed=how.get("seed", 0))]
    return rows
