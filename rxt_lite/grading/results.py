"""The reports of a class, all of them made from its rows: the same rows give the same bytes.

    results.jsonl      a line for every submission          class.csv, class.json    a row for every student
    items.csv, .svg    difficulty and discrimination        similar.csv, calls.csv   hints, no verdicts
    manual.csv         open answers, to fill in             gradescope/, feedback/   a file for every student
"""

import csv
import hashlib
import io
import json
import os
import re
from pathlib import Path

from rxt_lite.grading.analysis import items, plot, similar
from rxt_lite.grading.feedback import page
from rxt_lite.grading.source import Lab

NO_FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")


def file_name(student: str) -> str:
    """A name that is safe everywhere and that no two students share."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", student).strip("-")[:60] or "student"
    return f"{slug}-{hashlib.sha256(student.encode()).hexdigest()[:8]}"


def cell_text(value) -> str:
    """What a spreadsheet shows and does not run."""
    text = "" if value is None else str(value)
    return "'" + text if isinstance(value, str) and text.startswith(NO_FORMULA) else text


def to_csv(rows: list[dict], columns: list[str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell_text(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def write(path: Path, text: str) -> None:
    """All of the file or nothing: a kill between two bytes leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(path.name + ".part")
    waiting.write_text(text, encoding="utf-8")
    os.replace(waiting, path)


def write_reports(rows: list[dict], key: Lab, out: Path) -> None:
    for row in rows:
        name = file_name(row["student"])
        write(out / "feedback" / f"{name}.html", page(row, key))
        write(out / "gradescope" / f"{name}.json", json.dumps(gradescope(row), indent=1, ensure_ascii=False) + "\n")
    remove_others(out / "feedback", {file_name(row["student"]) + ".html" for row in rows})
    remove_others(out / "gradescope", {file_name(row["student"]) + ".json" for row in rows})
    table = [class_row(row) for row in rows]
    columns = ["student", "status", "score", "max", *key.questions, "isolation", "feedback"]
    write(out / "class.csv", to_csv(table, columns))
    found = items(rows)
    write(out / "class.json", json.dumps({"lab": key.name, "max": float(key.points), "students": table, "items": found}, indent=1) + "\n")
    write(out / "items.csv", to_csv(found, list(found[0]) if found else ["question"]))
    if found:
        plot(found, out / "items.svg")
    write(out / "similar.csv", to_csv(similar(rows), ["one", "two", "shared"]))
    write(out / "calls.csv", to_csv([{"student": row["student"], "calls": " ".join(row["calls"])} for row in rows if row["calls"]],
                                    ["student", "calls"]))
    write(out / "manual.csv", to_csv(to_grade_by_hand(rows), ["student", "question", "points", "max", "comment", "answer"]))
    shown = [{name: value for name, value in row.items() if name != "shingles"} for row in rows]
    write(out / "results.jsonl", "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in shown))


def remove_others(folder: Path, kept: set[str]) -> None:
    """Files of a student who is no longer there."""
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in kept:
            file.unlink()


def class_row(row: dict) -> dict:
    return {"student": row["student"], "status": row["status"], "score": row["score"], "max": row["max"],
            **{question["question"]: question["points"] for question in row["questions"]},
            "isolation": row["isolation"], "feedback": f"feedback/{file_name(row['student'])}.html"}


def gradescope(row: dict) -> dict:
    """The form that Gradescope reads; nothing in it that a student may not see."""
    tests = [{"name": f"{question['question']}: {question['title']}", "score": question["points"], "max_score": question["max"],
              **({} if "text" in question else {"status": "passed" if question["points"] == question["max"] else "failed"}),
              "output": words(question), "visibility": "visible"}
             for question in row["questions"]]
    return {"score": row["score"], "output": "\n".join(row["notes"]), "output_format": "text", "tests": tests}


def words(question: dict) -> str:
    """Status and messages of a question, as text."""
    messages = list(dict.fromkeys(check["message"] for check in question["checks"] if check["message"]))
    return "\n".join([question["status"], *messages, question.get("comment", "")]).strip()


def to_grade_by_hand(rows: list[dict]) -> list[dict]:
    return [{"student": row["student"], "question": question["question"], "max": question["max"], "answer": question["text"],
             "points": question["points"] if question["status"] == "graded by hand" else "", "comment": question["comment"]}
            for row in rows for question in row["questions"] if "text" in question]


def read_manual(path: Path, key: Lab) -> dict[tuple[str, str], tuple[float, str]]:
    """{(student, question): (points, comment)} from a filled-in manual.csv.

    Raises:
        ValueError: unknown columns or questions, or points that are none
    """
    found = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"student", "question", "points"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} has the columns {reader.fieldnames}; it needs student, question, points, and may have comment")
        for line, row in enumerate(reader, start=2):
            student, text = row["student"].removeprefix("'"), (row["points"] or "").strip()
            if not text:
                continue
            question = key.questions.get(row["question"])
            if question is None or not question["manual"]:
                raise ValueError(f"{path}, line {line}: {row['question']!r} is no open question of this lab")
            try:
                points = float(text.replace(",", "."))
            except ValueError:
                points = float("nan")
            if not 0 <= points <= question["points"]:
                raise ValueError(f"{path}, line {line}: {text!r} points; give a number from 0 to {question['points']}")
            found[student, row["question"]] = points, row.get("comment") or ""
    return found


def changed(before: Path, rows: list[dict]) -> list[str]:
    """Who has another score than in the report that stands there, and why."""
    if not before.exists():
        return []
    old = {}
    for line in before.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        old[row["student"]] = row
    said = []
    for row in rows:
        was = old.get(row["student"])
        if was is not None and was["score"] != row["score"]:
            why = [name for name in ("submission", "key", "environment") if was[name] != row[name]]
            said.append(f"{row['student']}: {was['score']:g} -> {row['score']:g} ({' and '.join(why) or 'points by hand'} changed)")
    return said
