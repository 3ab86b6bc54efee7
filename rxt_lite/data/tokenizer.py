"""Text to token ids and back: one byte-level BPE, and the frame that an event wears.

    query   [BOS] [Q] What colour is the hat? [A]
    event   [BOS] [Q] What colour is the hat? [A] The hat is red. [EOS]

The frame (RxT-Alpha's) is written as ids, never as text, so a user who types "[EOS]" has typed five characters.
"""
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rxt_lite.config import BOS, EOS, A, Q
from rxt_lite.data import world

SPECIALS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]", "[Q]", "[A]")  # their ids are in config.py


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of at most `vocab_size` tokens; the same texts give the same tokenizer.

    The specials and the 256 bytes are inside the count, so every text can be written and read back exactly.
    Raises ValueError when `vocab_size` leaves no room for them.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(SPECIALS) + len(alphabet):
        raise ValueError(f"vocab_size={vocab_size} is too small: {len(SPECIALS)} special tokens and {len(alphabet)} "
                         "bytes are always in it")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, special_tokens=list(SPECIALS),
                                  initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _hardened(tokenizer)


@lru_cache(maxsize=1)
def world_tokenizer() -> Tokenizer:
    """The tokenizer of the embedded small world: each of its words, with the space before it, is one token."""
    return train_tokenizer(2 * world.sentences(), vocab_size=4096)        # it runs out of pairs long before 4096


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write `path` whole or not at all: a full disk or a killed process leaves the old file as it was."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        unfinished.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote to `path`.

    Raises FileNotFoundError when there is none, and ValueError when the file is damaged or is not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the Rust side raises bare Exception for anything it cannot read
        raise ValueError(f"{path} is not a tokenizer, or it is cut off: {error}") from None
    for i, name in enumerate(SPECIALS):
        if tokenizer.token_to_id(name) != i:
            raise ValueError(f"{path} has {name} at id {tokenizer.token_to_id(name)}, expected {i}; "
                             "train it with train_tokenizer")
    return _hardened(tokenizer)


def encode_query(tokenizer: Tokenizer, query: str) -> list[int]:
    """[BOS][Q]query[A], after which a model writes its answer. Raises ValueError for an empty query."""
    return [BOS, Q, *_ids(tokenizer, _not_empty(query)), A]


def encode_event(tokenizer: Tokenizer, query: str, answer: str) -> list[int]:
    """[BOS][Q]query[A]answer[EOS], a finished event. Raises ValueError for an empty query."""
    return [*encode_query(tokenizer, query), *_ids(tokenizer, answer), EOS]


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens and without white space around it.

    A model may say any byte. What would steer a terminal instead of being read, such as an escape, becomes U+FFFD.
    """
    text = tokenizer.decode([int(i) for i in ids if i >= len(SPECIALS)], skip_special_tokens=False).strip()
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text.strip(), add_special_tokens=False).ids


def _not_empty(query: str) -> str:
    if not query.strip():
        raise ValueError("the query is empty; an event needs something to answer")
    return query


def _hardened(tokenizer: Tokenizer) -> Tokenizer:
    """No text turns into a control token. The file does not store this, so it is set at every birth."""
    tokenizer.encode_special_tokens = True
    return tokenizer
