"""The curriculum as data: the stages of the paper, and beside each the one we would rather use.

| stage | learns from | published | ours |
|---|---|---|---|
| joint_lm | events as plain text | the decoder reads the encoding of the text it is to predict | ... of the event before it |
| interaction_tuning | single events | answers only, [EOS] is no target | answers and [EOS] |
| memory_attention | dialogues | slot i imitates token i of the event | fill in the blanks of any earlier event |
| memory_aware | dialogues | the gradient reaches one update back | all of them |

Sources: arXiv 2510.03561, sections on supervised training; where the paper and its authors' code differ, "published" is
what the code does. Ours changes one thing at a time, so that each can be measured: `rxt-lite stages`.

`practice` and `more_practice` come after all that: the last lesson once more, with the worlds that are asked for.

Common to both sides, unlike the published code: padding is never a target and never read; an optimiser step sees all
events of a batch of dialogues, where the published one makes a step after every event.
"""

from dataclasses import replace

from rxt_lite.training.loop import Stage
from rxt_lite.training.losses import answer_loss
from rxt_lite.training.pretraining import MaskedHead, Reader, fill_in_blanks, imitate_event, joint_lm

LANGUAGE = ("embedding", "encoder", "decoder", "norm_head", "head")  # all but the memory attention and the initial slots

# Joint pre-training: L = - mean log p(masked | ED) - mean log p(next | before, noised and detached encoding).
# To it comes 0.01 balance where the decoder has experts (published: a sum that their load cancels out of, see experts.py).
# Published, the encoding is that of the same text, so the decoder reads the words it has to predict, and leans on them.
JOINT_LM = Stage(name="joint language model", loss=joint_lm, extra=MaskedHead, learns=LANGUAGE, lessons=False, steps=600, balance=0.01,
                 options={"reads": "event_before", "targets": "text", "noise": 0.15})
JOINT_LM_PUBLISHED = replace(JOINT_LM, name="joint language model, published", options={**JOINT_LM.options, "reads": "itself"})

# Interaction tuning: the same loss, its decoder's part on answers alone. Published, [EOS] is not among the targets,
# and the answer is read from its own encoding again.
INTERACTION_TUNING = replace(JOINT_LM, name="interaction tuning", steps=300, lr=1e-3,
                             options={**JOINT_LM.options, "targets": "answer"})
INTERACTION_TUNING_PUBLISHED = replace(INTERACTION_TUNING, name="interaction tuning, published",
                                       options={**JOINT_LM_PUBLISHED.options, "targets": "answer_words"})

# Memory-attention pre-training, all else frozen. Published: L = - mean cos(STM_t, a STM_{t-1} + w ED_t), token by slot.
# Ours: the blanks of an event that was told before are filled in from the memory by a reader that is thrown away.
MEMORY_ATTENTION = Stage(name="memory attention", loss=fill_in_blanks, extra=Reader, learns=("memory.",), steps=600, options={"mask": 0.5})
MEMORY_ATTENTION_PUBLISHED = Stage(name="memory attention, published", loss=imitate_event, learns=("memory.",), steps=600,
                                   options={"jitter": 0.15, "noise": 0.1})

# Memory-aware training: L = - mean log p(answer of event t | its query, STM_{t-1}).
# Published: the gradient of an answer reaches one update, [A] counts as a target, and what learns grows in three steps.
MEMORY_AWARE = Stage(name="memory-aware training", loss=answer_loss, steps=1500)
PRACTICE = replace(MEMORY_AWARE, name="practice", lessons=False, steps=1000, lr=2e-3, warmup=50)  # the last lesson once more, other worlds
MORE_PRACTICE = replace(PRACTICE, name="more practice", lr=1.5e-3)
MEMORY_AWARE_PUBLISHED = replace(MEMORY_AWARE, name="memory-aware training, published", steps=1500,
                                 options={"depth": 1, "targets": "answer_and_frame"})
MEMORY_AWARE_DECODER = replace(MEMORY_AWARE_PUBLISHED, name="memory-aware training, published: decoder", steps=400,
                               learns=("embedding", "decoder", "norm_head", "head"))
MEMORY_AWARE_MEMORY = replace(MEMORY_AWARE_DECODER, name="memory-aware training, published: decoder and memory",
                              learns=(*MEMORY_AWARE_DECODER.learns, "memory."))

STAGES = {
    "joint_lm": JOINT_LM,
    "joint_lm_published": JOINT_LM_PUBLISHED,
    "interaction_tuning": INTERACTION_TUNING,
    "interaction_tuning_published": INTERACTION_TUNING_PUBLISHED,
    "memory_attention": MEMORY_ATTENTION,
    "memory_attention_published": MEMORY_ATTENTION_PUBLISHED,
    "memory_aware": MEMORY_AWARE,
    "practice": PRACTICE,
    "more_practice": MORE_PRACTICE,
    "memory_aware_published_decoder": MEMORY_AWARE_DECODER,
    "memory_aware_published_memory": MEMORY_AWARE_MEMORY,
    "memory_aware_published": MEMORY_AWARE_PUBLISHED,
}
CURRICULUM = ("joint_lm", "interaction_tuning", "memory_attention", "memory_aware")
PUBLISHED = ("joint_lm_published", "interaction_tuning_published", "memory_attention_published",
             "memory_aware_published_decoder", "memory_aware_published_memory", "memory_aware_published")


def stage_called(name: str, **changes) -> Stage:
    """The stage of this name with some fields changed, or one clear error.

    Penalties on the memory pass by the stages that never write to it.
    """
    if name not in STAGES:
        raise ValueError(f"unknown stage {name!r}; choose one of {', '.join(STAGES)}")
    stage = STAGES[name]
    passed_by = ("slot_diversity", "gate_size") if stage.loss is joint_lm else ()
    return replace(stage, **{field: value for field, value in changes.items() if field not in passed_by})
