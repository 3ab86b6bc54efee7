"""Whole models behind one contract: answer from a state, then fold the event into it."""

from rxt_lite.models.decoder_lm import DecoderLM
from rxt_lite.models.rxt import RxT

MODELS = {"RxT": RxT, "DecoderLM": DecoderLM}  # a new model is one file here and one entry in this list

__all__ = ["MODELS", "DecoderLM", "RxT"]
