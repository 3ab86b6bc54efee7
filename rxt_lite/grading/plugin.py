"""nbval's notebook file and cells, built from the key: the run of one submission.

    nbval                         here
    IPyNbFile reads a notebook    GradedNotebook takes the plan: key's cells, student's answers in their places
    one kernel, its own folder    a jailed kernel; a lost one is replaced, and all but the cell that lost it is replayed
    IPyNbCell.runtest             the same; then the probes are compared with the key's saved outputs, within tolerances
    a failed cell                 a status: ok, error, timeout, killed;  for a check: pass, fail, error, timeout, killed

A question that was not right has a second look at the end, in a kernel that nobody has spoiled: with all cells run, then
without the cells that changed what cells share, then with its own answer alone. Its best result counts. Nothing can be
won by that, since no kernel ever holds an expected value.
"""

import ast
import builtins
import contextlib
import io
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from rxt_lite.grading.compare import probes, same_probes, tolerance
from rxt_lite.grading.jail import Limits
from rxt_lite.grading.kernel import JailedKernel, Lost
from rxt_lite.grading.probe import PROBE
from rxt_lite.grading.submission import Step


@dataclass
class Plan:
    """What to run, where and within which limits; `outcomes` is filled by the run: one dict for every step."""

    steps: list[Step]
    limits: Limits
    level: str
    library: bool
    private: tuple[str, ...] = ()
    outcomes: list[dict] = field(default_factory=list)


def run_plan(plan: Plan) -> list[dict]:
    """A pytest session with nbval for one submission: nothing is read from its folder or ours but the plan.

    Raises:
        RuntimeError: the grader itself failed, so that nothing is known about the submission
    """
    plugin = GradingPlugin(plan)
    options = ["--noconftest", "-c", os.devnull, "--rootdir", str(Path(__file__).parent), "-p", "no:cacheprovider", "-p", "no:xdist",
               "-p", "no:unraisableexception", "-p", "no:threadexception", "-p", "no:playwright", "-qq", "-s",
               f"--nbval-cell-timeout={plan.limits.cell}", str(PLACE)]
    saved, said = os.environ.pop("PYTEST_ADDOPTS", None), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = pytest.main(options, plugins=[plugin])
    finally:
        if saved is not None:
            os.environ["PYTEST_ADDOPTS"] = saved
        if plugin.notebook is not None:
            plugin.notebook.stop()
    if plugin.broken or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the grader failed: {plugin.broken or said.getvalue()[-2000:]}")
    return [item.outcome for item in plugin.notebook.items]


MOST_LOST_HELPERS = 3
PLACE = Path(__file__).with_name("jail.sh")  # pytest wants a file to collect: any that is always there


class GradingPlugin:
    """Collects one plan in place of a file."""

    def __init__(self, plan: Plan):
        self.plan, self.notebook, self.broken = plan, None, ""

    def pytest_collect_file(self, file_path, parent):
        if file_path == PLACE and self.notebook is None:
            self.notebook = GradedNotebook.from_parent(parent, path=file_path, plan=self.plan)
            return self.notebook
        return None

    def pytest_runtest_logreport(self, report):
        if report.failed:  # cells never fail: what goes wrong in them is their outcome
            self.broken = self.broken or str(report.longrepr)[-2000:]


class GradedNotebook(IPyNbFile):
    """The steps of a plan in one kernel, or in as many as it takes."""

    def __init__(self, *args, plan: Plan, **kwargs):
        super().__init__(*args, **kwargs)
        self.plan, self.items = plan, []
        self.names = sorted({name for step in plan.steps if step.role == "setup" for name in names_bound(step.source)})
        self.suspects: set[GradedCell] = set()   # cells after which a kernel was lost, or what cells share had changed
        self.losers: set[GradedCell] = set()     # those that lose it while they run themselves
        self.world: list[GradedCell] = []        # what has run in the present kernel
        self.before: dict = {}                   # what cells share, as it was

    def collect(self):
        self.items = [GradedCell.from_parent(self, name=f"{n} {step.role} {step.question}", cell_num=n, step=step)
                      for n, step in enumerate(self.plan.steps)]
        yield from self.items
        for n in range(len(self.checks())):
            yield SecondLook.from_parent(self, name=f"again {n}")

    def setup(self):
        self.deadline = time.monotonic() + self.plan.limits.notebook
        self.sanitize_patterns.clear()

    def teardown(self):
        self.stop()

    def stop(self) -> None:
        if self.kernel is not None:
            self.kernel.stop()
        self.kernel, self.world, self.before = None, [], {}

    def start(self) -> None:
        self.stop()
        how = {"library": self.plan.library, "level": self.plan.level, "private": self.plan.private,
               "deadline": self.deadline}
        try:
            self.kernel = JailedKernel(self.plan.limits, **how)
        except Lost:  # once more: a busy machine
            self.kernel = JailedKernel(self.plan.limits, **how)

    def enter(self, wanted: list["GradedCell"]) -> bool:
        """Have a kernel in which exactly `wanted` has run; False if one of them loses it again."""
        if self.kernel is not None and self.kernel.is_alive() and self.world == wanted:
            return True
        if time.monotonic() > self.deadline:
            self.stop()
            return False
        self.start()
        for item in wanted:
            if time.monotonic() > self.deadline or not item.replay():
                self.stop()
                return False
        return True

    def recover(self, upto: "GradedCell") -> None:
        """After a loss: the cells before `upto`, without suspects, in a new kernel. A check still needs its own answer."""
        needed = set(upto.own()) if upto.step.role == "check" else set()
        while not self.enter([item for item in self.cells() if item.cell_num < upto.cell_num
                              and item not in (self.suspects - needed) | self.losers]):
            if time.monotonic() > self.deadline:
                return

    def cells(self, *roles: str) -> list["GradedCell"]:
        return [item for item in self.items if item.step.role in (roles or ("setup", "extra", "answer"))]

    def checks(self) -> list["GradedCell"]:
        return self.cells("check")

    def next_look(self) -> "GradedCell | None":
        """A check that was not right and has not had its second look; those that may take long come last."""
        left = [item for item in self.checks() if not item.right and not item.looked_at]
        return min(left, key=lambda item: (item.outcome["status"] in ("timeout", "killed"), item.cell_num), default=None)

    def blame(self, item: "GradedCell") -> None:
        """For a lost kernel: the cell itself, or the answer that a check has asked."""
        self.suspects.update(item.own() if item.step.role == "check" else [item])
        self.losers.update([] if item.step.role == "check" else [item])

    def look(self, item: "GradedCell") -> None:
        """Suspect the cell that has run, or the answer that was asked, if what cells share is not what it was."""
        now = self.kernel.look(self.names)
        if item.step.role != "setup" and any(now.get(name) != value for name, value in self.before.items()):
            self.suspects.update(item.own() if item.step.role == "check" else [item])
        self.before = {**self.before, **now}


class GradedCell(IPyNbCell):
    """A cell of the plan. `outcome`: {"role", "question", "status", "error", "got"}; `got` are the probes of a check."""

    def __init__(self, name, parent, cell_num, step: Step):
        cell = nbformat.v4.new_code_cell(step.source)
        if step.role == "check":
            cell.source, cell.outputs, cell.execution_count = PROBE + step.source, step.cell.outputs, 1
        super().__init__(name, parent, cell_num, cell, {"check": step.role == "check", "skip": False, "check_exception": False})
        self.step, self.test_outputs, self.postponed, self.looked_at = step, [], False, False
        self.outcome = {"role": step.role, "question": step.question, "status": "missing", "error": "", "got": {}}

    def setup(self):
        """nbval expects failures after a timeout; here nothing is expected."""

    @property
    def right(self) -> bool:
        return self.outcome["status"] == "pass"

    def own(self) -> list["GradedCell"]:
        """The answer cells of this cell's question."""
        return [item for item in self.parent.cells("answer") if item.step.question == self.step.question]

    def runtest(self):
        notebook = self.parent
        if time.monotonic() > notebook.deadline:
            self.outcome |= {"status": "timeout", "error": "time of the notebook"}
            return
        if self.step.role == "extra" and sum(item.step.role == "extra" for item in notebook.losers) >= MOST_LOST_HELPERS:
            notebook.blame(self)  # unheard: the time of all is limited, and the answers need it
            return
        if notebook.kernel is None:
            notebook.recover(self)
        lost_before = [item for item in self.own() if item.outcome["status"] in ("timeout", "killed")]
        lost_check = [item for item in notebook.checks() if item.step.question == self.step.question
                      and item.outcome["status"] in ("timeout", "killed")]
        if self.step.role == "check" and (lost_before or lost_check):
            self.postponed = not lost_before  # the other questions first: the time of a notebook is limited
            self.outcome |= {key: (lost_before + lost_check)[0].outcome[key] for key in ("status", "error")}
            return
        try:
            self.run_in_kernel()
            if self.step.role != "check":
                notebook.world.append(self)
            notebook.look(self)
        except Lost as lost:
            if not self.right:
                self.outcome |= {"status": lost.status, "error": lost.why}
            notebook.blame(self)
            notebook.stop()

    def run_in_kernel(self) -> None:
        """nbval's own run of a cell; what it raises becomes the outcome."""
        kernel = self.parent.kernel
        self.test_outputs = []
        if kernel is None:
            raise Lost("timeout", "time of the notebook")
        kernel.raised = ""
        with contextlib.suppress(NbCellError):  # it raised, or its outputs differ from the key's
            super().runtest()
        raised = kernel.raised
        if self.step.role != "check":
            self.outcome |= {"status": "error" if raised else "ok", "error": public(raised)}
        elif not self.right:
            passed = self.compare_outputs(self.test_outputs, self.cell.outputs)
            status = "pass" if passed else "error" if raised else "fail"
            self.outcome |= {"status": status, "error": public(raised), "got": probes(self.test_outputs)}

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        """nbval's comparison, on probes and with tolerances."""
        self.comparison_traceback = []
        return same_probes(probes(ref), probes(test), **tolerance(self.step.cell.metadata.lab))

    def replay(self) -> bool:
        """The same cell in a new kernel; False if that is lost."""
        notebook = self.parent
        try:
            notebook.kernel.run(self.cell.source, notebook.plan.limits.cell)
            notebook.world.append(self)
            if self.step.role == "setup":
                notebook.look(self)
            return True
        except Lost:
            notebook.blame(self)
            return False


class SecondLook(pytest.Item):
    """A check that was not right, once more."""

    def runtest(self):
        self.first = self.parent.next_look()
        if self.first is None or time.monotonic() > self.parent.deadline:
            return
        self.first.looked_at = True
        for wanted in self.worlds():
            if self.parent.enter(wanted):
                try:
                    self.first.run_in_kernel()
                except Lost:
                    self.parent.stop()
            if self.first.right or time.monotonic() > self.parent.deadline:
                return

    def worlds(self):
        """All cells, if more have run since; without suspects, if there are others; this answer alone, if it may help."""
        notebook, own = self.parent, self.first.own()
        others = {item for item in notebook.suspects if item.cell_num < self.first.cell_num} - set(own)
        losing = self.first.outcome["status"] in ("timeout", "killed")
        if self.first.postponed:
            yield [item for item in notebook.cells() if item in own or item not in notebook.suspects | notebook.losers]
        if notebook.kernel is not None and set(own) <= set(notebook.world) and notebook.world[-1] not in own and not losing:
            yield list(notebook.world)
        before = [item for item in notebook.cells("extra", "answer") if item.cell_num < self.first.cell_num and item not in own]
        if others:
            yield [item for item in notebook.cells() if item not in others]
        if before and (others or losing):
            yield [item for item in notebook.cells() if item.step.role == "setup" or item in own]

    def reportinfo(self):
        return self.path, None, self.name


def public(raised: str) -> str:
    """The name of a built-in exception; any other name is the student's text, which may carry what the kernel has seen."""
    kind = getattr(builtins, raised, None) if raised.isidentifier() else None
    known = isinstance(kind, type) and issubclass(kind, BaseException)
    return raised if known else "an error of another kind" if raised else ""


def names_bound(source: str) -> set[str]:
    """Names that a cell of the lab binds: imports, assignments, definitions."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic
        return set()
    names = set()
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names
