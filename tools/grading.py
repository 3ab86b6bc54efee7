"""How fast a class is graded: copies of right answers, a row for each way of grading them.

    python tools/grading.py             20 submissions of the example lab one after the other, 40 of a lab with torch two at a time
    python tools/grading.py 200         as many of the lab with torch

Every copy differs by a comment, so that none is taken from the journal.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from rxt_lite.grading.check import SECRET, answered
from rxt_lite.grading.grade import grade_class
from rxt_lite.grading.jail import Limits, best_level
from rxt_lite.grading.key import make_key
from rxt_lite.grading.source import read_lab, to_text

CLASSES = (("labs/example/source.ipynb", 20, 1), ("labs/source/lab2-attention-heads.ipynb", 40, 2))


def measure(source: str, submissions: int, jobs: int) -> dict:
    lab = read_lab(Path(source))
    key = to_text(make_key(lab, SECRET))
    with tempfile.TemporaryDirectory() as folder:
        handed_in = Path(folder) / "handed in"
        handed_in.mkdir()
        for n in range(submissions):
            notebook = answered(lab, {cell.metadata.lab["question"]: f"{cell.source}\n# {n}" for cell in lab.cells("answer")})
            (handed_in / f"{n}.ipynb").write_text(to_text(notebook))
        start = time.monotonic()
        rows, failures = grade_class(key, handed_in, Path(folder) / "out", limits=Limits(), level=best_level(), jobs=jobs)
        seconds = time.monotonic() - start
    automatic = sum(question["points"] for question in lab.questions.values() if not question["manual"])
    assert not failures and all(row["score"] == automatic for row in rows)
    return {"lab": lab.name, "submissions": submissions, "jobs": jobs, "isolation": best_level(), "seconds": round(seconds, 1),
            "seconds_each": round(seconds / submissions, 2)}


def main() -> int:
    torch_class = int(sys.argv[1]) if len(sys.argv) > 1 else CLASSES[1][1]
    for source, submissions, jobs in CLASSES:
        print(json.dumps(measure(source, torch_class if jobs > 1 else submissions, jobs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
