"""Rows that a longer training has left in book/results, for a chapter to show beside its own."""

import json
from pathlib import Path


def stored(name: str, folder: Path | str = "results") -> list[dict]:
    """The rows of `folder`/`name`, one JSON object a line; none where the notebook is away from the repository.

    >>> stored("recall.jsonl", folder="nowhere")
    []
    """
    path = Path(folder) / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
