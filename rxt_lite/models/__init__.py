"""Whole models behind one contract: answer from a state, then fold the event into it."""

from rxt_lite.models.decoder_lm import DecoderLM, WindowLM
from rxt_lite.models.memnet import MemNet
from rxt_lite.models.rxt import RxT

MODELS = {"RxT": RxT, "DecoderLM": DecoderLM, "MemNet": MemNet}  # a new model is one file here and one entry in this list

__all__ = ["MODELS", "DecoderLM", "MemNet", "RxT", "WindowLM"]
