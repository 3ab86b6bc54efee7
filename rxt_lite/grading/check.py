"""A lab is itself tested: its right answers earn all points, an untouched release none, and each known-wrong answer
loses exactly what its author says, with the author's message, in the visible check and in the feedback.
"""

import json

import nbformat

from rxt_lite.grading.grade import Task, grade_one
from rxt_lite.grading.jail import Limits, best_level
from rxt_lite.grading.key import Answers, make_key
from rxt_lite.grading.source import Lab, release, role, to_text

SECRET = "a secret for checking labs, not for a course"


def check_lab(lab: Lab) -> list[str]:
    """What is wrong with a lab: nothing, it is hoped."""
    key = to_text(make_key(lab, SECRET))
    graded = {"the key's own answers": answered(lab, {}), "an untouched release": release(lab), "a blank one, run": blank(lab)}
    rows = {name: grade(notebook, key) for name, notebook in graded.items()}
    automatic = float(sum(question["points"] for question in lab.questions.values() if not question["manual"]))
    wanted = {"the key's own answers": automatic}
    problems = [f"{name}: {row['score']:g} points instead of {wanted.get(name, 0):g} {lost(row)}"
                for name, row in rows.items() if row["score"] != wanted.get(name, 0)]
    return problems + visible_problems(lab) + wrong_problems(lab, key)


def grade(notebook, key: str) -> dict:
    return grade_one(Task("check", to_text(notebook).encode(), key, Limits(), best_level()))


def lost(row: dict) -> list[str]:
    return [f"{check['check']}: {check['status']} {check['error']}" for question in row["questions"] for check in question["checks"]
            if check["status"] != "pass"]


def answered(lab: Lab, instead: dict[str, str]):
    """A submission: the release with the lab's own answers, or those of `instead` by question."""
    notebook = release(lab)
    own = {cell.metadata.lab["question"]: cell.source for cell in lab.cells("answer")}
    for cell in notebook.cells:
        if role(cell) == "answer":
            question = cell.metadata.lab["question"]
            cell.source = instead.get(question, own[question])
    return notebook


def blank(lab: Lab):
    """A release whose answer cells differ by a comment only, so that they are run."""
    notebook = release(lab)
    for cell in notebook.cells:
        if role(cell) == "answer":
            cell.source += "\n# I had a look"
    return notebook


def wrong_problems(lab: Lab, key: str) -> list[str]:
    """The n-th wrong answers of all questions make one submission: questions do not share their points."""
    by_question = {name: lab.cells("wrong", question=name) for name in lab.questions}
    problems = []
    for n in range(max(map(len, by_question.values()), default=0)):
        wrong = {name: cells[n] for name, cells in by_question.items() if n < len(cells)}
        row = grade(answered(lab, {name: cell.source for name, cell in wrong.items()}), key)
        for question in row["questions"]:
            cell = wrong.get(question["question"])
            if "text" in question:
                continue
            losing = question["max"] - question["points"]
            wanted = cell.metadata.lab["loses"] if cell else 0
            messages = {check["message"] for check in question["checks"] if check["message"]}
            if losing != wanted:
                problems.append(f"{cell.id if cell else question['question']}: loses {losing:g} points instead of {wanted:g}")
            elif cell and cell.metadata.lab["message"] not in messages:
                problems.append(f"{cell.id}: says {sorted(messages)} instead of {cell.metadata.lab['message']!r}")
    return problems


def visible_problems(lab: Lab) -> list[str]:
    """Visible checks pass right answers, fail gaps with an assertion, and name the mistake of wrong answers (unless `visible` is false)."""
    problems, gaps = [], {cell.metadata.lab["question"]: cell for cell in release(lab).cells if role(cell) == "answer"}
    with Answers(lab, SECRET) as answers:
        for cell in lab.cells("setup", "answer"):
            answers.run(cell)
        for visible in lab.cells("visible"):
            question = visible.metadata.lab["question"]
            said = {"right": answers.said(visible)}
            if said["right"]:
                problems.append(f"{visible.id}: fails the right answer: {said['right']}")
            for cell in [gaps[question], *lab.cells("wrong", question=question)]:
                answers.kernel.run(cell.source, answers.limits.cell)
                text, kind = answers.said(visible), role(cell)
                seen = cell.metadata.lab.get("visible", True)
                message = cell.metadata.lab.get("message", "")
                if (seen and not (text.startswith("AssertionError") and message in text)) or (not seen and text):
                    problems.append(f"{visible.id} says {json.dumps(text)} of {kind} {cell.id}; expected {message!r}")
            for cell in lab.cells("answer", question=question):
                answers.run(cell)
    return problems


def differs(lab: Lab, path) -> str:
    """Empty if the student notebook at `path` is what the source generates."""
    if not path.exists():
        return f"{path} is missing; run: rxt-lite lab release {lab.path} --out {path.parent}"
    if path.read_text(encoding="utf-8") != to_text(release(lab)):
        return f"{path} is not what {lab.path} generates; run: rxt-lite lab release {lab.path} --out {path.parent}"
    nbformat.validate(nbformat.read(path, as_version=4))
    return ""
