"""Training: one visible loop, and the losses it is given."""

from rxt_lite.training.loop import Stage, fit
from rxt_lite.training.losses import answer_loss, whole_answers_right

__all__ = ["Stage", "answer_loss", "fit", "whole_answers_right"]
