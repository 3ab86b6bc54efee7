"""How long a notebook may take: `ci` (seconds), `cpu` (a laptop's minutes) or `gpu`."""

import os

PROFILES = ("ci", "cpu", "gpu")


def profile(given: str | None = None) -> str:
    """The profile to run with: `given` (papermill's parameter), else RXT_PROFILE, else by device.

    >>> profile("ci")
    'ci'
    """
    chosen = given or os.environ.get("RXT_PROFILE") or _by_device()
    if chosen not in PROFILES:
        raise ValueError(f"profile {chosen!r} is not known; choose one of {', '.join(PROFILES)}")
    return chosen


def _by_device() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
