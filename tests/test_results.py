"""What stands in book/results comes from its command: a reduced run has the same columns, says the same, and recomputes a sample."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rxt_lite.experiments.intervals import wilson

ROOT = Path(__file__).parent.parent
STORED = ROOT / "book" / "results"


def rows_in(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The results in profile ci, made anew in a copy of nothing but the command's inputs."""
    work = tmp_path_factory.mktemp("results")
    (work / "rxt_lite").symlink_to(ROOT / "rxt_lite")
    subprocess.run([sys.executable, ROOT / "tools" / "results.py", "--profile", "ci"], check=True, cwd=work)
    return work / "_build" / "results-ci"


NAMES = sorted(file.stem for file in STORED.glob("*.jsonl"))
OWN = ("recall", "hard", "far", "verdicts", "training", "compare", "ablate", "stages", "whose", "cost", "latency", "slots")


def columns(rows):
    return {tuple(sorted(row)) for row in rows}


@pytest.mark.parametrize("name", [name for name in NAMES if name in OWN])
def test_a_reduced_run_has_the_same_columns_and_every_row_says_where_it_is_from(fresh, name):
    stored, again = rows_in(STORED, name), rows_in(fresh, name)
    assert columns(stored) <= columns(again)
    assert all(row["commit"] and row["hardware"] and row["profile"] == "full" for row in stored)


def overall(rows, arm):
    of_arm = [row for row in rows if row["arm"] == arm]
    return sum(row["recall"] * row["n"] for row in of_arm) / sum(row["n"] for row in of_arm)


@pytest.mark.parametrize("name", ["recall", "hard", "far"])
def test_memory_on_is_far_above_its_controls_in_both(fresh, name):
    for rows in (rows_in(STORED, name), rows_in(fresh, name)):
        rows = [row for row in rows if row.get("by", "seen") == "seen"]
        on = overall(rows, "memory_on")
        assert on > (0.7 if name == "far" else 0.8)
        assert all(overall(rows, arm) < on - 0.5 for arm in ("memory_reset", "memory_swapped", "last_event_only", "chance"))


def test_stored_recall_of_the_shipped_model_is_that_of_its_first_questions_asked_again(fresh):
    """The reduced run asks the first 64 of the 512 dialogues: shares may differ as far as chance allows, not further."""
    again, stored = rows_in(fresh, "recall"), [row for row in rows_in(STORED, "recall") if row["seed"] == 0]
    for arm in {row["arm"] for row in again}:
        n = sum(row["n"] for row in again if row["arm"] == arm)
        low, high = wilson(round(n * overall(again, arm)), n)
        assert low - 0.03 <= overall(stored, arm) <= high + 0.03, arm
    cell = {(row["arm"], row["seen"]): row["recall"] for row in stored}
    for row in again:  # many cells: each may lie as far off as one in a thousand
        low, high = wilson(round(row["n"] * row["recall"]), row["n"], z=3.3)
        assert low - 0.05 <= cell[row["arm"], row["seen"]] <= high + 0.05, row


def test_cost_is_counted_so_it_is_the_same_to_the_last_digit(fresh):
    drop = lambda rows: [{k: v for k, v in row.items() if k not in ("commit", "profile", "hardware")} for row in rows]  # noqa: E731
    assert drop(rows_in(STORED, "cost")) == drop(rows_in(fresh, "cost"))
    exponents = {row["arm"]: row["exponent_tokens"] for row in rows_in(STORED, "cost") if row["turns"] == 1000}
    assert exponents["rxt"] == pytest.approx(1.0, abs=0.005) and exponents["reread"] == pytest.approx(2.0, abs=0.02)


def test_an_rxt_answer_takes_as_long_at_turn_64_as_at_turn_1():
    median = {(row["arm"], row["turn"]): row["median_ms"] for row in rows_in(STORED, "latency")}
    assert median["rxt_answer", 64] <= 1.05 * median["rxt_answer", 1]
    assert median["reread", 64] >= 5 * median["reread", 1]
