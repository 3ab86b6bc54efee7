"""Grade a class: every submission in a worker, a line in the journal as soon as it is known, reports when all are.

The journal (OUT/journal.jsonl) is what makes a killed run go on: a line counts as long as submission, key and environment
are the same. The reports depend on the lines alone, not on their order, the number of workers or the time.
"""

import contextlib
import hashlib
import json
import multiprocessing
import platform
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import nbformat

from rxt_lite.grading.analysis import calls, shingles
from rxt_lite.grading.compare import same_probes, tolerance
from rxt_lite.grading.jail import Limits
from rxt_lite.grading.plugin import Plan, run_plan
from rxt_lite.grading.source import Lab
from rxt_lite.grading.submission import LARGEST, Picked, Unreadable, pick, read_submission

ORDER = ("killed", "timeout", "error", "fail", "missing")  # the worst of a question's checks gives its status
OPEN_TEXT = 20_000


@dataclass(frozen=True)
class Task:
    """One submission: who, its bytes, and all that grading depends on."""

    student: str
    data: bytes
    key: str
    limits: Limits
    level: str
    private: tuple[str, ...] = ()  # files and folders that exist for no kernel: the key, the submissions, the report

    @property
    def fingerprint(self) -> str:
        parts = (self.data, self.key.encode(), json.dumps(environment(self.limits, self.level), sort_keys=True).encode())
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def environment(limits: Limits, level: str) -> dict:
    """What else a result depends on."""
    versions = {}
    for name in ("rxt-lite", "nbval", "ipykernel", "numpy", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"python": platform.python_version(), **versions, "isolation": level, "limits": asdict(limits)}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------------ one submission
def grade_one(task: Task) -> dict:
    """The row of one submission. Whatever stands in it, there is a row."""
    key = Lab(nbformat.reads(task.key, as_version=4), Path("key"))
    row = {"student": task.student, "status": "graded", "score": 0.0, "max": float(key.points), "questions": [], "notes": [],
           "calls": [], "isolation": task.level, "submission": sha(task.data), "key": sha(task.key.encode()),
           "environment": sha(json.dumps(environment(task.limits, task.level), sort_keys=True).encode()), "fingerprint": task.fingerprint,
           "shingles": []}
    try:
        picked = pick(key, read_submission(task.data))
    except Unreadable as why:
        row |= {"status": "unreadable", "notes": [str(why)]}
        picked = Picked([])
    row["notes"] += picked.notes
    row["calls"] = calls([step.source for step in picked.steps if step.role in ("answer", "extra")])
    row["shingles"] = shingles([text for name, text in picked.answers.items() if not key.questions[name]["manual"]])
    outcomes = graded_checks(key, picked, task) if picked.steps else []
    row["questions"] = [question_row(key, name, picked, outcomes) for name in key.questions]
    row["score"] = float(sum(question["points"] for question in row["questions"]))
    return row


def failed(task: Task) -> dict:
    """The row of a submission at which the grader itself failed."""
    row = grade_one(replace(task, data=b""))
    return row | {"notes": ["the grader failed for this file; the instructor has been told, and will run it again"],
                  "submission": sha(task.data), "fingerprint": task.fingerprint}


def graded_checks(key: Lab, picked: Picked, task: Task) -> list[dict]:
    """Outcomes of all steps, with the id of the cell for checks. Setup alone is not run."""
    if not any(step.role == "answer" for step in picked.steps):
        return []
    outcomes = run_plan(Plan(picked.steps, task.limits, task.level, key.about.get("library", False), task.private))
    return [{**outcome, "id": step.cell.id} for outcome, step in zip(outcomes, picked.steps) if step.role == "check"]


def question_row(key: Lab, name: str, picked: Picked, outcomes: list[dict]) -> dict:
    about = key.questions[name]
    row = {"question": name, "title": about["title"], "points": 0.0, "max": float(about["points"]), "status": "manual", "checks": []}
    if about["manual"]:
        text = picked.answers.get(name, "")
        return {**row, "status": "manual" if text else "missing", "text": text[:OPEN_TEXT], "comment": ""}
    by_id = {outcome["id"]: outcome for outcome in outcomes}
    row["checks"] = [check_row(cell, by_id.get(cell.id)) for cell in key.cells("check", question=name)]
    row["points"] = float(sum(check["points"] for check in row["checks"]))
    found = {check["status"] for check in row["checks"]}
    row["status"] = next((status for status in ORDER if status in found), "pass")
    return row


def check_row(cell, outcome: dict | None) -> dict:
    """Points, status and message of one hidden check; the message is the key's."""
    about = cell.metadata.lab
    outcome = outcome or {"status": "missing", "error": "", "got": {}}
    passed = outcome["status"] == "pass"
    message = "" if passed or outcome["status"] == "missing" else about["hint"]
    for diagnosis in () if passed else about.get("diagnoses", []):
        if outcome["got"] and same_probes(diagnosis["probes"], outcome["got"], **tolerance(about)):
            message = diagnosis["message"]
            break
    return {"check": cell.id, "points": float(about["points"]) if passed else 0.0, "max": float(about["points"]),
            "status": outcome["status"], "error": "" if passed else outcome["error"], "message": message}


# --------------------------------------------------------------------------------------------------------- submissions
def submissions(place: Path) -> Iterator[tuple[str, bytes]]:
    """(student, bytes) of every notebook in a folder or a zip, a bit more than the largest allowed of each; links are not followed.

    The student is the path without .ipynb, as text: it never becomes a path again.
    """
    if place.is_file() and zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            for info in archive.infolist():
                if wanted(info.filename):
                    yield student_of(info.filename), member(archive, info)
        return
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else None
    if files is None:
        raise ValueError(f"{place} does not exist; give a folder of notebooks, a zip, or one notebook")
    for file in files:
        name = file.name if place.is_file() else file.relative_to(place).as_posix()
        if wanted(name) and file.is_file() and not file.is_symlink():
            yield student_of(name), content(file)


def wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(".ipynb") and not any(part in (".ipynb_checkpoints", "__MACOSX") for part in parts)


def student_of(name: str) -> str:
    """The name as text that can be written anywhere; bytes that are no UTF-8 and control characters are spelled out."""
    text = name[:-len(".ipynb")].encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def content(file: Path) -> bytes:
    """What stands in it; nothing if it cannot be read, which makes its submission unreadable, not absent."""
    try:
        with file.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError:
        return b""


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as stream:
            return stream.read(LARGEST + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError):  # zipfile's words: encrypted, unknown compression
        return b""


# --------------------------------------------------------------------------------------------------------------- class
def read_journal(path: Path) -> dict[str, dict]:
    """{fingerprint and student: row}; a line that a kill cut off is none."""
    rows = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            rows[row["fingerprint"] + row["student"]] = row
    return rows


def grade_class(key: str, place: Path, out: Path, *, limits: Limits, level: str, jobs: int = 1, scheduler: str = "",
                private: tuple[str, ...] = (), progress=lambda done, of: None) -> tuple[list[dict], list[str]]:
    """Rows of all submissions, by student, and what failed in the grader itself: its row says so, and is tried again next time.

    Raises:
        ValueError: no submissions
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = out / "journal.jsonl"
    known, rows, tasks = read_journal(journal), {}, []
    seen: set[str] = set()
    for student, data in submissions(place):
        while student in seen:  # a zip may hold a name twice
            student += " (again)"
        seen.add(student)
        task = Task(student, data, key, limits, level, (*private, str(place), str(out)))
        if task.fingerprint + student in known:
            rows[student] = known[task.fingerprint + student]
        else:
            tasks.append(task)
    if not rows and not tasks:
        raise ValueError(f"{place} holds no notebook (*.ipynb)")
    total, failures = len(rows) + len(tasks), []
    with journal.open("ab") as stream:
        stream.write(b"\n")  # after a line that a kill may have cut off
        for task, row, failure in run_all(tasks, jobs, scheduler):
            if failure:
                failures.append(f"{task.student}: {failure}")
                rows[task.student] = failed(task)
                continue
            rows[task.student] = row
            stream.write(json.dumps(row, sort_keys=True).encode() + b"\n")
            stream.flush()
            progress(len(rows), total)
    return [rows[student] for student in sorted(rows)], failures


ONE_AT_A_TIME = threading.Lock()  # a process runs one pytest session at a time, also where a Dask worker has many threads


def attempt(task: Task) -> tuple[dict | None, str]:
    """The row, or why there is none; tried twice, since a grader may be unlucky too."""
    for last in (False, True):
        try:
            with ONE_AT_A_TIME:
                return grade_one(task), ""
        except Exception as error:  # one bad file never stops a class
            if last:
                return None, f"{type(error).__name__}: {str(error)[-500:]}"
    raise AssertionError


def run_all(tasks: list[Task], jobs: int, scheduler: str) -> Iterator[tuple[Task, dict | None, str]]:
    if scheduler:
        yield from run_on_dask(tasks, scheduler)
    elif jobs == 1:
        for task in tasks:
            yield task, *attempt(task)
    else:
        yield from run_in_processes(tasks, jobs)


def run_in_processes(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, dict | None, str]]:
    """A few tasks in flight at a time. A worker that dies takes its pool along: what it held is tried again, each by itself."""
    waiting, suspects = list(reversed(tasks)), []
    context = multiprocessing.get_context("spawn")
    while waiting:
        flying: dict = {}
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            try:
                while waiting or flying:
                    while waiting and len(flying) < 2 * jobs:
                        task = waiting.pop()
                        flying[pool.submit(attempt, task)] = task
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        row, failure = future.result()
                        yield flying.pop(future), row, failure
            except BrokenProcessPool:
                suspects += flying.values()
    for task in suspects:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                yield task, *pool.submit(attempt, task).result()
            except BrokenProcessPool:
                yield task, None, "the grading process died twice"


def run_on_dask(tasks: list[Task], scheduler: str) -> Iterator[tuple[Task, dict | None, str]]:
    """The same on the workers of a Dask cluster; what a killed worker held is given to another."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError("--scheduler needs Dask: pip install distributed") from None
    with Client(scheduler) as client:
        flying = {client.submit(attempt, task, pure=False, retries=3): task for task in tasks}
        for future in as_completed(flying):
            task = flying[future]
            yield (task, None, f"{future.exception()!r}"[:500]) if future.status == "error" else (task, *future.result())


def with_manual_points(rows: list[dict], manual: dict[tuple[str, str], tuple[float, str]]) -> list[dict]:
    """Rows with the points that were given by hand.

    Raises:
        ValueError: points for somebody who handed nothing in, which would be lost
    """
    strangers = sorted({student for student, _ in manual} - {row["student"] for row in rows})
    if strangers:
        raise ValueError(f"points by hand for {strangers[:5]}, but no submission has such a name; names are those in class.csv")
    merged = []
    for row in rows:
        questions = []
        for question in row["questions"]:
            points, comment = manual.get((row["student"], question["question"]), (None, ""))
            if points is not None and "text" in question:
                question = {**question, "points": points, "comment": comment, "status": "graded by hand"}
            questions.append(question)
        merged.append({**row, "questions": questions, "score": float(sum(question["points"] for question in questions))})
    return merged


def pseudonym(student: str, salt: int) -> str:
    return "student-" + sha(f"{salt}/{student}".encode())[:10]


def renamed(rows: list[dict], salt: int) -> tuple[list[dict], dict[str, str]]:
    """Rows under pseudonyms, and {student: pseudonym}."""
    names = {row["student"]: pseudonym(row["student"], salt) for row in rows}
    return sorted(({**row, "student": names[row["student"]]} for row in rows), key=lambda row: row["student"]), names


