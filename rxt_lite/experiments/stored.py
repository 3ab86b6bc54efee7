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


COLUMNS = {"all": "recall", "alone": "alone", "rival": "rival", "reset": "memory_reset", "swap": "memory_swapped",
           "last": "last_event_only", "cos": "cosine", "rank": "rank"}


def as_text(rows: Sequence[dict], of: str = "variant") -> str:
    """Rows of `rxt-lite ablate` or `stages` as a reader sees them: a line for each value of the column `of`, with means
    over its seeds, and below them how far chance reaches. Narrow enough for a page: plans have long names, and no shape of slots."""
    if not rows:
        return "There are no stored rows here; they are in book/results of the repository."
    of_value = {name: [row for row in rows if row[of] == name] for name in dict.fromkeys(row[of] for row in rows)}
    columns = [title for title in COLUMNS if of != "plan" or title not in ("cos", "rank")]
    width = max(map(len, of_value))
    lines = [" " * width + "".join(f"{title:>6}" for title in [*columns, "steps"])]
    for name, mine in of_value.items():
        means = [sum(row[COLUMNS[title]] for row in mine) / len(mine) for title in columns]
        lines.append(f"{name:{width}}" + "".join(f"{mean:6.2f}" for mean in means) + f"{mine[0]['steps']:6}")
    seeds, half = {len(mine) for mine in of_value.values()}, max((row["high"] - row["low"]) / 2 for row in rows)
    return "\n".join([
        *lines, "",
        "all, alone, rival: recall; of facts told of nobody else, of somebody else too",
        "reset, swap, last: of an empty memory, another's, one of the last event only",
        *(["cos, rank: mean cosine of two slots, and how many directions they use"] if "cos" in columns else []),
        f"{rows[0]['n']} questions, training seeds: {' or '.join(map(str, sorted(seeds)))}",
        f"of a share in one run at most {half:.2f} to either side is chance (95 %)"])
