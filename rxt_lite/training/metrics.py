"""The rows of a run as they come: JSON lines beside the run file, and TensorBoard where it is asked for.

A run may have been killed after its last save. What it wrote since then is done again, so its lines are dropped first:
the file holds every step once, in order, whatever happened.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Metrics:
    """A block that takes the rows of a run: `with Metrics(run, tensorboard, rows) as metrics: metrics.add(row)`.

    run          the run file; without one nothing is written beside it
    tensorboard  a folder, or None
    rows         the steps that are done already
    """

    def __init__(self, run: Path | str | None, tensorboard: Path | str | None, rows: list[dict]):
        self.path = None if run is None else metrics_file(run)
        self.folder, self.rows, self.lines, self.board = tensorboard, rows, None, None

    def __enter__(self) -> "Metrics":
        if self.path:
            beside = self.path.with_name(self.path.name + ".part")
            with self.clear_error():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                beside.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
                os.replace(beside, self.path)
                self.lines = self.path.open("ab", buffering=0)
        if self.folder:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder), purge_step=len(self.rows))
        return self

    def add(self, row: dict) -> None:
        if self.lines:
            line = (json.dumps(row) + "\n").encode()
            with self.clear_error():
                if self.lines.write(line) < len(line):
                    raise OSError("the disk is full")
        if self.board:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, row["step"])

    def __exit__(self, *error) -> None:
        if self.lines:
            self.lines.close()
        if self.board:
            self.board.close()


    @contextmanager
    def clear_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"could not write the metrics to {self.path}: {error}. The last good save of the run is untouched; free some "
                          "space, and start again with the same arguments to go on from it") from error


def metrics_file(run: Path | str) -> Path:
    """rxt.run -> rxt.metrics.jsonl"""
    return Path(run).with_suffix(".metrics.jsonl")
