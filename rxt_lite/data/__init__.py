"""Text for the models: an embedded small world, real stories, one tokenizer, and batches of dialogues."""
from rxt_lite.data.batches import Batch, fits, make_batch
from rxt_lite.data.dialogues import (
           EXAMPLE,
           PRESETS,
           SPLITS,
           Dialogue,
           Event,
           Probe,
           World,
           answer_is_right,
           classify,
           make_dialogue,
           make_dialogues,
)
from rxt_lite.data.stories import load_dialogues, load_stories, story_split, story_to_dialogue
from rxt_lite.data.tokenizer import decode, encode_event, encode_query, load_tokenizer, save_tokenizer, train_tokenizer, world_tokenizer

__all__ = ["EXAMPLE", "PRESETS", "SPLITS", "Batch", "Dialogue", "Event", "Probe", "World", "answer_is_right", "classify", "decode",
           "encode_event", "encode_query", "fits", "load_dialogues", "load_stories", "load_tokenizer", "make_batch",
           "make_dialogue", "make_dialogues", "save_tokenizer", "story_split", "story_to_dialogue", "train_tokenizer",
           "world_tokenizer"]
