"""Rows that a longer training has left in book/results, for a chapter to show beside its own."""

import json
from collections.abc import Sequence
from pathlib import Path


def stored(name: str, folder: Path | str = "results") -> list[dict]:
    """The rows of `folder`/`name`, one JSON object a line; none where the notebook is away from the repository.

    >>> stored("recall.jsonl", folder="nowhere")
    []
    """
    path = Path(folder) / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


COLUMNS = {"recall": "recall", "alone": "alone", "rival": "rival", "reset": "memory_reset", "swap": "memory_swapped",
           "last": "last_event_only"}
SLOTS = {"cosine": "cosine", "rank": "rank"}


def as_text(rows: Sequence[dict], of: str = "variant") -> str:
    """Rows of `rxt-lite ablate` or `stages` as a reader sees them: a line for each value of the column `of`, with means
    over its seeds, and below them how far chance reaches. Plans have long names, and no room for the shape of the slots."""
    if not rows:
        return "There are no stored rows here; they are in book/results of the repository."
    names, columns = list(dict.fromkeys(row[of] for row in rows)), COLUMNS if of == "plan" else COLUMNS | SLOTS
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{title:>7}" for title in columns) + "  steps seeds"]
    for name in names:
        mine = [row for row in rows if row[of] == name]
        means = [sum(row[key] for row in mine) / len(mine) for key in columns.values()]
        lines.append(f"{name:{width}}" + "".join(f"{mean:7.2f}" for mean in means) + f"{mine[0]['steps']:7}{len(mine):6}")
    half = max((row["high"] - row["low"]) / 2 for row in rows)
    return "\n".join([
        *lines, "",
        "alone, rival: questions about what was told of nobody else before, and of somebody else too",
        "reset, swap, last: with an empty memory, another dialogue's, one of the last event only",
        f"{rows[0]['n']} questions; of a share in one run at most {half:.2f} to either side is chance (95 %)"])
