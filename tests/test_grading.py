"""Grading without trust: nobody gains a point over the honest score, nobody loses one to somebody else's cell."""

import ast
import csv
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
from grading_cases import ATTACKS, FILES, FOUND, HONEST, LOOK_FOR, NO_NOTEBOOKS, RIGHT, SPIES, WRONG
from typer.testing import CliRunner

from rxt_lite.cli import app
from rxt_lite.grading.analysis import calls, shingles, similar
from rxt_lite.grading.check import SECRET, answered, check_lab, differs
from rxt_lite.grading.grade import Task, grade_class, grade_one, pseudonym, submissions, with_manual_points
from rxt_lite.grading.jail import Jail, Limits, best_level, leftovers, world
from rxt_lite.grading.key import make_key
from rxt_lite.grading.results import file_name, read_manual, write_reports
from rxt_lite.grading.source import BEGIN, END, Lab, read_lab, release, to_text

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "labs" / "example" / "source.ipynb"
LIMITS = Limits(cell=2.0, notebook=120.0, memory=2048, output=4)
PATIENT = Limits(cell=6.0)
LAB = read_lab(SOURCE)
needs_namespaces = pytest.mark.skipif(best_level() != "namespaces", reason="Linux namespaces are not to be had here")


@pytest.fixture(scope="module")
def key() -> str:
    return to_text(make_key(LAB, SECRET))


def notebook_with(answers: dict[str, str]):
    return answered(LAB, {**RIGHT, **answers})


def graded(notebook, key: str, limits: Limits = LIMITS) -> dict:
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    return grade_one(Task("somebody", data, key, limits, best_level()))


def points(row: dict) -> list[float]:
    return [question["points"] for question in row["questions"]][:3]


# ------------------------------------------------------------------------------------------------------------- attacks
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_gains_nothing_and_costs_nobody_else(name, key):
    row = graded(notebook_with({"q1": WRONG + ATTACKS[name]}), key)
    assert points(row) == [0, 3, 4], json.dumps(row["questions"], indent=1)
    assert row["max"] == 12
    assert not Path("/tmp/rxt-pickled").exists()


@needs_namespaces
def test_spies_find_nothing(key):
    """All in one notebook: had one of them found what it looks for, the answer would be right."""
    folder = ROOT / "_build" / "grading"  # not below /tmp, which is hidden anyway
    folder.mkdir(parents=True, exist_ok=True)
    places = {"key": folder / "key.ipynb", "other": folder / "other.ipynb", "beside": folder / "planted", "source": SOURCE}
    (folder / "key.ipynb").write_text(key)
    (folder / "other.ipynb").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted = {"port": server.getsockname()[1], **{name: str(place) for name, place in places.items()}}
        codes = [code.format(**wanted) for code in SPIES.values()]
        row = graded(notebook_with({"q1": WRONG + LOOK_FOR.format(codes=codes, found=FOUND)}), key)
    assert points(row) == [0, 3, 4], json.dumps(row["questions"], indent=1)
    assert not places["beside"].exists() and not Path("/tmp/rxt-planted").exists()


@needs_namespaces
def test_what_a_course_keeps_lies_in_no_jail_though_its_folder_does():
    """Packages are shown to every kernel: what lies among them and is private is hidden, and so is rxt_lite where it is installed."""
    package = Path(nbformat.__file__).parent
    jail = Jail(Limits(), library=False, level="namespaces", private=(str(package / "v4"), str(package / "sign.py")))
    look = (f"import os; print(os.listdir({str(package / 'v4')!r}), os.path.getsize({str(package / 'sign.py')!r}), "
            f"os.path.getsize({str(package / '__init__.py')!r}) > 0, os.path.exists({str(ROOT / 'rxt_lite')!r}))")
    try:
        said, _ = jail.start(sys.executable, "-c", look, stdout=subprocess.PIPE).communicate(timeout=60)
    finally:
        jail.close()
    assert said.decode().strip() == "[] 0 True False"


def test_hidden_folders_do_not_hide_the_python_in_them(monkeypatch):
    """A course in /usr/src/app with its environment inside: the environment is shown again."""
    monkeypatch.setattr(sys, "prefix", "/usr/lib")
    lines = world(False, ("/usr",))
    assert "+/usr" in lines and "-/usr" not in lines
    lines = world(True, ("/usr/share", "/var"))
    assert "-/usr/share" in lines and lines.index("+/usr") < lines.index("-/usr/share") and "-/var" not in lines


def test_the_key_the_submissions_and_the_report_are_private(key, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("rxt_lite.grading.grade.grade_one", lambda task: seen.append(task.private) or grade_one(task))
    (tmp_path / "one.ipynb").write_text(to_text(release(LAB)))
    grade_class(key, tmp_path, tmp_path / "out", limits=LIMITS, level=best_level(), private=("the key",))
    assert seen == [("the key", str(tmp_path), str(tmp_path / "out"))]


@pytest.mark.parametrize("name", ["daemon", "endless in a session of its own"])
def test_nothing_outlives_its_notebook(name, key, monkeypatch):
    jails, make = [], Jail.__init__
    monkeypatch.setattr(Jail, "__init__", lambda self, *args, **how: (make(self, *args, **how), jails.append(self))[0])
    graded(notebook_with({"q1": WRONG + ATTACKS[name]}), key, Limits(cell=1.0))
    time.sleep(0.3)  # a process that was killed needs a moment to end
    assert jails and not any(leftovers(str(jail.work)) or jail.home.exists() for jail in jails)


@needs_namespaces
def test_a_spy_that_finds_would_be_seen(key):
    row = graded(notebook_with({"q1": WRONG + LOOK_FOR.format(codes=["1"], found=FOUND)}), key)
    assert points(row) == [3, 3, 4]


def honest_together() -> list[dict[str, str]]:
    """Honest cases that answer different questions share a notebook."""
    together = []
    for answers in HONEST.values():
        place = next((some for some in together if not some.keys() & answers.keys()), None)
        together.append(dict(answers)) if place is None else place.update(answers)
    return together


@pytest.mark.parametrize("answers", honest_together(), ids="+".join)
def test_honest_work_keeps_its_points(answers, key):
    row = graded(notebook_with(answers), key, PATIENT)
    assert points(row) == [3, 3, 4], json.dumps(row["questions"], indent=1)


def test_the_example_lab_holds_what_it_says():
    assert check_lab(LAB) == []


def test_release_and_key_hold_no_solution(key):
    for text in (to_text(release(LAB)), key):
        for solution in ("keepdims", "cumsum(np.cumsum", "gate * update + (1 - gate) * old\\n"):
            assert solution not in text


# --------------------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("name", FILES)
def test_file_is_graded_by_its_answers_alone(name, key):
    """Edited, deleted, copied and dressed-up cells, old formats, lost ids: what was answered counts, and the maximum is the key's."""
    change, wanted = FILES[name]
    notebook = json.loads(json.dumps(notebook_with({})))
    row = graded(change(notebook) or notebook, key, PATIENT)
    assert points(row) == wanted, json.dumps(row, indent=1)
    assert row["max"] == 12


@pytest.mark.parametrize("name", NO_NOTEBOOKS)
def test_what_is_no_notebook_is_unreadable_or_empty(name, key):
    row = graded(NO_NOTEBOOKS[name], key)
    assert row["status"] in ("unreadable", "graded") and row["score"] == 0 and row["max"] == 12
    assert row["status"] == "graded" or row["notes"]


# --------------------------------------------------------------------------------------------------------------- class
NAMES = ("ada", "a,b", "=cmd()", "..%2fx/émile")


@pytest.fixture(scope="module")
def submitted(tmp_path_factory, key) -> Path:
    """A class of four with odd names, one of them wrong, and an unreadable file; and a key."""
    folder = tmp_path_factory.mktemp("a class")
    (folder / "handed in" / "..%2fx").mkdir(parents=True)
    for name in NAMES:
        notebook = notebook_with({"q1": WRONG} if name == "a,b" else {})
        next(cell for cell in notebook.cells if cell.id == "q4-answer").source += f"\n\n<script>alert(1)</script> I am {name}"
        (folder / "handed in" / f"{name}.ipynb").write_text(to_text(notebook))
    (folder / "handed in" / "broken.ipynb").write_text("{")
    (folder / "handed in" / "link.ipynb").symlink_to("/etc/passwd")
    (folder / "key.ipynb").write_text(key)
    return folder


def grade(folder: Path, out: str, *options, ok: int = 1) -> str:
    command = [sys.executable, "-m", "rxt_lite.cli", "grade", "key.ipynb", "handed in", "--out", out, *map(str, options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == ok, done.stderr
    return done.stdout


def bytes_of(out: Path) -> dict[str, bytes]:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*"))
            if file.is_file() and file.name != "journal.jsonl"}


@pytest.fixture(scope="module")
def report(submitted) -> Path:
    said = grade(submitted, "out")
    assert said.startswith("4 graded") and ", 1 unreadable, 0 failed" in said
    return submitted / "out"


def test_report_has_a_row_for_everybody_and_no_formula(report):
    rows = list(csv.DictReader((report / "class.csv").open(newline="", encoding="utf-8")))
    assert {row["student"]: float(row["score"]) for row in rows} == {
        "ada": 10, "a,b": 7, "'=cmd()": 10, "..%2fx/émile": 10, "broken": 0}
    assert [row["status"] for row in rows if row["student"] == "broken"] == ["unreadable"]
    assert all(float(row["max"]) == 12 for row in rows)
    for file in report.rglob("*"):
        assert report in file.resolve().parents


def test_feedback_is_for_one_student_escaped_and_hides_the_checks(report):
    for name in NAMES:
        page = (report / "feedback" / f"{file_name(name)}.html").read_text()
        assert 'lang="en"' in page and "<script" not in page and "&lt;script&gt;" in page
        assert "default_rng" not in page and "probe(" not in page
        assert not any(f"I am {other}" in page for other in NAMES if other not in name)
    assert "normalise along the last axis" not in (report / "feedback" / f"{file_name('ada')}.html").read_text()


def test_gradescope_form(report):
    form = json.loads((report / "gradescope" / f"{file_name('a,b')}.json").read_text())
    assert form["score"] == 7 and [test["max_score"] for test in form["tests"]] == [3, 3, 4, 2]
    assert form["output_format"] == "text" and sum(test["score"] for test in form["tests"]) == form["score"]
    assert [test.get("status") for test in form["tests"]] == ["failed", "passed", "passed", None]
    assert all(set(test) <= {"name", "score", "max_score", "status", "output", "visibility"} and test["visibility"] == "visible"
               for test in form["tests"])
    assert len(list((report / "gradescope").iterdir())) == 5, "the unreadable one gets a file too"


def test_items_tell_how_hard_a_question_was(report):
    rows = {row["question"]: row for row in csv.DictReader((report / "items.csv").open())}
    assert float(rows["q1"]["difficulty"]) == pytest.approx(0.75) and float(rows["q2"]["difficulty"]) == 1
    assert (report / "items.svg").read_text().count("<svg") == 1


def test_two_at_a_time_gives_the_same_bytes(report, submitted):
    grade(submitted, "out-2", "--jobs", 2)
    assert bytes_of(report) == bytes_of(submitted / "out-2")


def test_killed_and_started_again_gives_the_same_bytes(report, submitted):
    command = [sys.executable, "-m", "rxt_lite.cli", "grade", "key.ipynb", "handed in", "--out", "out-3"]
    running = subprocess.Popen(command, cwd=submitted, stdout=subprocess.DEVNULL)
    journal = submitted / "out-3" / "journal.jsonl"
    while running.poll() is None and (not journal.exists() or journal.read_bytes().count(b"{\"calls") < 2):
        time.sleep(0.02)
    kernels = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    assert psutil.wait_procs(kernels, timeout=10)[1] == [], "a kernel outlives its grader"
    done = journal.read_bytes()
    assert not (submitted / "out-3" / "class.csv").exists() and 2 <= done.count(b"{\"calls") < 5
    journal.write_bytes(done + b'{"calls": [], "score": 9')  # a line that the kill cut off
    grade(submitted, "out-3")
    assert bytes_of(report) == bytes_of(submitted / "out-3")
    assert journal.read_bytes().startswith(done), "what was graded is not graded again"


def test_regrading_says_whose_score_changed_and_why(report, submitted, tmp_path):
    shutil.copytree(submitted, tmp_path / "again", symlinks=True)
    (tmp_path / "again" / "handed in" / "a,b.ipynb").write_text(to_text(notebook_with({})))
    assert "a,b: 7 -> 10 (submission changed)" in grade(tmp_path / "again", "out")


def test_points_by_hand_and_pseudonyms(report, submitted, key, tmp_path):
    """Points may name a student or, as in the manual.csv of an anonymous report, a pseudonym."""
    hidden = pseudonym("=cmd()", nbformat.reads(key, as_version=4).metadata.lab.salt)
    (tmp_path / "points.csv").write_text(f"student,question,points,comment\nada,q4,1.5,<b>good</b>\n{hidden},q4,2,\n")
    again = submitted / "out-4"
    shutil.copytree(report, again)
    said = grade(submitted, "out-4", "--manual", tmp_path / "points.csv", "--anonymous", tmp_path / "who.csv")
    assert "failed" in said
    who = {row["student"]: row["pseudonym"] for row in csv.DictReader((tmp_path / "who.csv").open())}
    scores = {row["student"]: float(row["score"]) for row in csv.DictReader((again / "class.csv").open())}
    assert scores[who["ada"]] == 11.5 and scores[who["'=cmd()"]] == 12
    assert "&lt;b&gt;good" in (again / "feedback" / f"{file_name(who['ada'])}.html").read_text()
    for file in filter(Path.is_file, again.rglob("*")):
        text = file.name + file.read_text()
        for name in NAMES:
            text = text.replace(f"I am {name}", "")  # an open answer is the student's own text
        assert not any(name in text for name in ("a,b", "émile", "cmd", "ada,")), file


@pytest.mark.parametrize("line, says", [("nobody,q4,1", "no submission"), ("ada,q1,1", "no open question"), ("ada,q4,3", "0 to 2"),
                                        ("ada,q4,nan", "0 to 2"), ("ada,q4,all", "0 to 2")])
def test_points_by_hand_that_would_be_lost_or_wrong_are_refused(line, says, report, key, tmp_path):
    (tmp_path / "points.csv").write_text(f"student,question,points\n{line}\n")
    rows = [json.loads(row) for row in (report / "results.jsonl").read_text().splitlines()]
    with pytest.raises(ValueError, match=says):
        with_manual_points(rows, read_manual(tmp_path / "points.csv", Lab(nbformat.reads(key, as_version=4), Path("key"))))


def test_dask_workers_give_the_same_report_though_one_is_killed(report, submitted, key):
    distributed = pytest.importorskip("distributed")
    killed = []

    def kill_when_busy(pid: int) -> None:
        """As soon as the worker has a kernel of its own."""
        worker = psutil.Process(pid)
        while not any("unshare" in child.name() or "python" in child.name() for child in worker.children()):
            time.sleep(0.05)
        worker.kill()
        killed.append(pid)

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        pid = next(iter(cluster.workers.values())).pid
        threading.Thread(target=kill_when_busy, args=(pid,), daemon=True).start()
        rows, failures = grade_class(key, submitted / "handed in", submitted / "out-5", limits=Limits(), level=best_level(),
                                     scheduler=cluster.scheduler_address)
    assert failures == [] and killed
    write_reports(rows, Lab(nbformat.reads(key, as_version=4), Path("key")), submitted / "out-5")
    assert bytes_of(report) == bytes_of(submitted / "out-5")


def test_a_fault_of_the_grader_costs_one_row_that_says_so(key, tmp_path, monkeypatch):
    """Its row stands in the report, not in the journal: the next run tries again."""
    def broken(plan):
        raise RuntimeError("out of luck")

    for name in ("one", "two"):
        (tmp_path / f"{name}.ipynb").write_text(to_text(notebook_with({}) if name == "one" else release(LAB)))
    with monkeypatch.context() as patch:
        patch.setattr("rxt_lite.grading.grade.run_plan", broken)
        rows, failures = grade_class(key, tmp_path, tmp_path / "out", limits=LIMITS, level=best_level())
    assert [(row["student"], row["status"], row["score"]) for row in rows] == [("one", "unreadable", 0), ("two", "graded", 0)]
    assert failures == ["one: RuntimeError: out of luck"] and "grader failed" in rows[0]["notes"][0]
    rows, failures = grade_class(key, tmp_path, tmp_path / "out", limits=LIMITS, level=best_level())
    assert rows[0]["score"] == 10 and failures == []


def test_every_file_is_somebody_whatever_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"a\xff.ipynb", b"a\xfe.ipynb", b"line\nbreak.ipynb", b"esc\x1b[2J.ipynb", b"B.IPYNB", b"secret.ipynb", b"c.txt"):
        (folder / os.fsdecode(name)).write_bytes(b"{}")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened(tmp_path if "secret" in self.name else self, *a, **k))
    found = dict(submissions(folder))
    assert set(found) == {"a\\udcff", "a\\udcfe", "line\\nbreak", "esc\\x1b[2J", "B", "secret"}
    assert found["secret"] == b"", "what cannot be read is unreadable, not absent"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("x.ipynb", "{}")
        archive.writestr("x.ipynb", "{")
    rows, _ = grade_class(to_text(make_empty_key()), tmp_path / "x.zip", tmp_path / "out", limits=LIMITS, level="limits")
    assert [row["student"] for row in rows] == ["x", "x (again)"]


def make_empty_key():
    return nbformat.v4.new_notebook(metadata={"lab": {"name": "n", "title": "t"}})


def test_hints_find_copies_and_unusual_calls():
    """Renamed variables, other numbers and comments do not hide a copy; what the whole class has is none."""
    common = "def f(x):\n    return [y for y in x if y > 0 and x[0] != y]\n"
    own = "".join(f"def g{n}(a, b):\n    c = {{}}\n    for d in {'a' if n % 2 else 'sorted(a)'}:\n"
                  f"        c[d] = [b[n] * {n}, d{' + c' * n}]\n    return c{'.k' * n}\n" for n in range(1, 9))
    copy = own.replace("b[", "first[").replace("c[", "table[").replace("* 3", "* 0.5") + "# mine\n"
    others = {f"other{n}": common + f"x = {'-' * n}(1 if y else not z) @ w{'[0]' * n}\n" * 9 for n in range(8)}
    rows = [{"student": name, "shingles": shingles([text])} for name, text in {"ann": own, "bob": copy, **others}.items()]
    assert [(pair["one"], pair["two"]) for pair in similar(rows)] == [("ann", "bob")]
    assert calls(["import os\nos._exit(0)", "# subprocess\nx = frozen"]) == ["_exit"]


def test_zip_with_paths_that_lead_out(submitted, key, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("../../x.ipynb", to_text(notebook_with({"q1": WRONG})))
        archive.writestr("/etc/y.ipynb", "{}")
    rows, failures = grade_class(key, tmp_path / "all.zip", tmp_path / "out", limits=LIMITS, level=best_level())
    assert [(row["student"], row["score"]) for row in rows] == [("../../x", 7), ("/etc/y", 0)] and failures == []
    write_reports(rows, Lab(nbformat.reads(key, as_version=4), Path("key")), tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.zip", "out"]


def test_grader_stays_small_while_a_student_prints_for_ever(key):
    graded(notebook_with({}), key)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graded(notebook_with({"q1": WRONG + "\nwhile True: print('x' * 100_000)\n"}), key)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # kB


# ------------------------------------------------------------------------------------------------------- labs and mistakes
def test_keys_of_two_courses_expect_different_values(key):
    other = nbformat.reads(to_text(make_key(LAB, "the secret of another course")), as_version=4)
    here = nbformat.reads(key, as_version=4)
    for a, b in zip(here.cells, other.cells):
        assert "SECRET" not in a.source
        assert a.metadata.lab.role != "check" or a.outputs != b.outputs


@pytest.mark.parametrize("source, says", [
    ("assert softmax(1)", "compares"), ("assert softmax(1) is None\nprobe(x=softmax(np.ones(2)))", "compares"),
    ("x = softmax(1)", "never calls probe"), ("probe(x=", "no Python"), ("probe(x=0.5, y=1j)", "no number"),
    ("probe(ok=np.allclose(1, 1))", "compares"), ("probe(ok=softmax(np.ones(2))[0] > 0)", "compares"),
    ("probe(shape=softmax(np.ones((2, 3))).shape)", "guessed")])
def test_a_check_that_can_be_guessed_is_refused(source, says, tmp_path):
    notebook = nbformat.read(SOURCE, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "q1-check-1").source = source
    (tmp_path / "lab.ipynb").write_text(to_text(notebook))
    with pytest.raises(ValueError, match=says):
        make_key(read_lab(tmp_path / "lab.ipynb"), SECRET)


def test_a_wrong_answer_that_loses_nothing_is_found(tmp_path):
    notebook = nbformat.read(SOURCE, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "q2-wrong-transcript").source = RIGHT["q2"]
    (tmp_path / "lab.ipynb").write_text(to_text(notebook))
    assert any("q2-wrong-transcript: loses 0" in problem for problem in check_lab(read_lab(tmp_path / "lab.ipynb")))


def test_isolation_that_is_required_and_missing_is_an_error(submitted):
    """Without unshare on the path there are no namespaces: nothing is graded."""
    command = [sys.executable, "-m", "rxt_lite.cli", "grade", "key.ipynb", "handed in", "--out", "out-6", "--require-isolation"]
    done = subprocess.run(command, cwd=submitted, capture_output=True, text=True, env={**os.environ, "PATH": "/nowhere"})
    assert done.returncode == 1 and "namespaces" in done.stderr and not (submitted / "out-6").exists()


def test_plain_limits_grade_too(key):
    row = grade_one(Task("somebody", json.dumps(notebook_with({"q1": WRONG + ATTACKS["memory"]})).encode(), key, LIMITS, "limits"))
    assert points(row) == [0, 3, 4] and row["isolation"] == "limits"


# ------------------------------------------------------------------------------------------------ what stands in the tree
SOURCES = sorted((ROOT / "labs" / "source").glob("*.ipynb"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_student_notebooks_are_what_their_sources_generate(source):
    lab = read_lab(source)
    assert differs(lab, ROOT / "labs" / source.name) == ""
    assert 4 <= sum(not question["manual"] for question in lab.questions.values()) <= 8
    assert sum(question["manual"] for question in lab.questions.values()) == 1
    assert lab.cells("wrong") and "colab.research.google.com" in lab.notebook.cells[0].source


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_solution_stands_in_what_students_get(source):
    """No line between the solution markers, and no hidden check, if it is long enough to be told from prose."""
    lab, text = read_lab(source), (ROOT / "labs" / source.name).read_text()
    told = [json.dumps(line.strip(), ensure_ascii=False)[1:-1] for cell in lab.cells("check") for line in cell.source.split("\n")]
    for cell in lab.cells("answer"):
        inside = False
        for line in cell.source.split("\n"):
            inside = line.strip() == BEGIN or (inside and line.strip() != END)
            told += [json.dumps(line.strip(), ensure_ascii=False)[1:-1]] if inside else []
    assert [line for line in told if len(line) > 30 and line in text] == []


def test_the_example_goes_from_source_to_class_report(key, tmp_path):
    rows, failures = grade_class(key, SOURCE.parent / "submissions", tmp_path, limits=PATIENT, level=best_level())
    assert failures == []
    lab = Lab(nbformat.reads(key, as_version=4), Path("key"))
    rows = with_manual_points(rows, read_manual(SOURCE.parent / "points.csv", lab))
    assert {row["student"]: row["score"] for row in rows} == {"amber": 12, "basalt": 9, "coral": 2, "delta": 3, "ember": 9, "fjord": 11.5}
    write_reports(rows, lab, tmp_path)
    assert "rows do not sum to 1" in (tmp_path / "feedback" / f"{file_name('basalt')}.html").read_text()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_lab_says_what_a_student_asks_first_and_its_checks_come_in_stages(source):
    lab = read_lab(source)
    head = lab.notebook.cells[0].source
    assert all(word in head for word in ("**Time**", "minutes", "GPU is not needed", "do not write", f"**Points**: {lab.points:g}"))
    for cell in lab.cells("visible"):
        asserts = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Assert)]
        assert len(asserts) >= 2 and all(node.msg is not None for node in asserts), cell.id
    checked = {name: (len(lab.cells("visible", question=name)), len(lab.cells("check", question=name))) for name in lab.questions}
    assert all(visible for name, (visible, _) in checked.items() if not lab.questions[name]["manual"])
    assert any(hidden > 1 for _, hidden in checked.values()), "no question gives partial credit"


def test_commands_make_what_a_course_needs(tmp_path):
    """A released notebook, a key that only its owner reads; and a lab with a mistake is no success."""
    (tmp_path / "course.secret").write_text(SECRET)
    run = CliRunner().invoke
    assert run(app, ["lab", "release", str(SOURCE), "--out", str(tmp_path)]).exit_code == 0
    assert differs(LAB, tmp_path / "example.ipynb") == ""
    made = run(app, ["lab", "key", str(SOURCE), "--out", str(tmp_path / "keys" / "key.ipynb"), "--secret", str(tmp_path / "course.secret")])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "keys" / "key.ipynb").stat().st_mode & 0o077 == 0
    (tmp_path / "example.ipynb").write_text("{}")
    assert "is not what" in differs(LAB, tmp_path / "example.ipynb")
    (tmp_path / "course.secret").write_text("short")
    assert run(app, ["lab", "key", str(SOURCE), "--out", str(tmp_path / "k"), "--secret", str(tmp_path / "course.secret")]).exit_code == 1
    without = run(app, ["lab", "key", str(SOURCE), "--out", str(tmp_path / "k"), "--secret", "a secret"])
    assert without.exit_code == 1 and "make one" in without.output and not (tmp_path / "k").exists()


def test_feedback_is_accessible(report, browser):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": 375, "height": 700})
    for name in ("a,b", "broken"):
        page.goto((report / "feedback" / f"{file_name(name)}.html").as_uri())
        found = Axe().run(page).response["violations"]
        assert [(violation["id"], violation["help"]) for violation in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()


def test_no_key_is_in_the_tree():
    tracked = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert [name for name in tracked if "key" in nbformat.read(ROOT / name, as_version=4).metadata.get("lab", {})] == []
