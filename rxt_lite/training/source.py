"""Where batches come from: batch number `step` is always the same, so a run can stop and go on anywhere."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from rxt_lite.data.batches import Batch, make_batch
from rxt_lite.data.dialogues import Dialogue, World, make_dialogues


@dataclass(frozen=True)
class WorldBatches:
    """Endless dialogues of the embedded small world, each of them new.

    lessons     ((first step, (world, ...)), ...): which worlds (presets or `World`s) are taught in turn from which
                step on; the first lesson begins at 0
    """

    lessons: tuple[tuple[int, tuple[World | str, ...]], ...]
    batch_size: int
    seed: int
    max_event_len: int
    tokenizer: Tokenizer = field(repr=False)

    def __post_init__(self):
        for _, worlds in self.lessons:
            for world in worlds:
                make_dialogues(world, 1)  # an unknown preset is refused now, not when its lesson begins

    def __call__(self, step: int) -> Batch:
        worlds = [worlds for first, worlds in self.lessons if step >= first][-1]
        dialogues = make_dialogues(worlds[step % len(worlds)], self.batch_size, seed=self.seed, start=step * self.batch_size)
        return make_batch(dialogues, self.tokenizer, max_event_len=self.max_event_len)


@dataclass(frozen=True)
class ListBatches:
    """A list of dialogues in a new random order every epoch."""

    dialogues: Sequence[Dialogue] = field(repr=False)
    batch_size: int
    seed: int
    max_event_len: int
    tokenizer: Tokenizer = field(repr=False)
    name: str = "dialogues"

    def __post_init__(self):
        if not self.dialogues:
            raise ValueError(f"{self.name} holds no dialogue to train on")

    def __call__(self, step: int) -> Batch:
        per_epoch = -(-len(self.dialogues) // self.batch_size)
        epoch, place = divmod(step, per_epoch)
        order = list(range(len(self.dialogues)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return make_batch([self.dialogues[i] for i in chosen], self.tokenizer, max_event_len=self.max_event_len)
