"""The grader's key: a lab's hidden checks with the outputs of its right answers, and what its known-wrong answers would show.

Numbers called SECRET in a hidden check come from the course secret, so the published source gives nobody the expected
values. The key holds no solution: a key that leaks shows inputs and outputs, and no key ever enters a student's kernel.
"""

import ast
import hashlib
import hmac
import json
import math
import re
import time

import nbformat

from rxt_lite.grading.compare import probes, same_probes, tolerance
from rxt_lite.grading.jail import Limits, best_level
from rxt_lite.grading.kernel import JailedKernel
from rxt_lite.grading.probe import MIME, PROBE, UNKNOWN
from rxt_lite.grading.source import KERNEL, Lab, role, without_solution

FORBIDDEN = {"allclose", "isclose", "array_equal", "assert_close", "assert_allclose", "equal"}

SAYS = """
def _says():
    from IPython.display import publish_display_data
    import json
    said = ""
    try:
        exec(compile(%r, "check", "exec"), globals())
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    publish_display_data({%r: {"name": "says", "json": json.dumps(said)}})
_says()
"""


def secret_number(secret: str, lab: str, cell: str) -> int:
    """Between 0 and 2^31, different for every course, lab and check."""
    return int.from_bytes(hmac.new(secret.encode(), f"{lab}/{cell}".encode(), hashlib.sha256).digest()[:4], "big") >> 1


class Answers:
    """A trusted kernel in which the lab's own answers have run; wrong ones may take their places for a moment."""

    def __init__(self, lab: Lab, secret: str):
        self.lab, self.secret = lab, secret
        self.limits = Limits(cell=120.0, notebook=1800.0)
        self.kernel = JailedKernel(self.limits, library=lab.about.get("library", False), level=best_level(),
                                   deadline=time.monotonic() + self.limits.notebook)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kernel.stop()

    def run(self, cell, source: str = "") -> list:
        """Outputs of a cell; an error in it is an error of the lab."""
        self.kernel.raised = ""
        shown = self.kernel.run(source or cell.source, self.limits.cell)
        if self.kernel.raised:
            raise ValueError(f"{self.lab.path}: cell {cell.id} raises {self.kernel.raised}; run the source notebook from top to bottom")
        return [nbformat.v4.new_output("display_data", data=data) for data in shown if MIME in data]

    def check_source(self, cell) -> str:
        return re.sub(r"\bSECRET\b", str(secret_number(self.secret, self.lab.name, cell.id)), cell.source)

    def probe(self, cell) -> list:
        return self.run(cell, PROBE + self.check_source(cell))

    def probe_wrong(self, cell) -> dict:
        """What a check shows for a wrong answer, which may well raise."""
        shown = self.kernel.run(PROBE + self.check_source(cell), self.limits.cell)
        return probes([{"data": data} for data in shown])

    def said(self, cell) -> str:
        """What a visible check says: "", or the error's type and text."""
        (data,) = self.kernel.run(SAYS % (cell.source, MIME), self.limits.cell)
        return json.loads(data[MIME]["json"])


def make_key(lab: Lab, secret: str) -> nbformat.NotebookNode:
    """Run the lab's answers and wrong answers, and save what the checks show.

    Raises:
        ValueError: an answer or a check fails, or a check could be guessed
    """
    if len(secret) < 16:
        raise ValueError(f"the course secret has {len(secret)} characters; take at least 16 that nobody can guess")
    key = nbformat.v4.new_notebook(metadata={**KERNEL, "lab": {**lab.about, "key": 1, "salt": secret_number(secret, lab.name, "salt")}})
    with Answers(lab, secret) as answers:
        for cell in lab.notebook.cells:
            kind = role(cell)
            new = nbformat.from_dict({**cell, "metadata": {"lab": {"role": kind, **cell.metadata.get("lab", {})}}})
            if kind in ("setup", "answer"):
                answers.run(cell)
            if kind == "answer":
                new.source = without_solution(cell.source)
            if kind == "check":
                refuse_what_can_be_guessed(cell, lab)
                new.source, new.outputs, new.execution_count = answers.check_source(cell), answers.probe(cell), 1
                refuse_yes_or_no(new, lab)
            elif cell.cell_type == "code":
                new.outputs, new.execution_count = [], None
            if kind and kind != "wrong":
                key.cells.append(new)
        add_diagnoses(key, lab, answers)
    return key


def add_diagnoses(key, lab: Lab, answers: Answers) -> None:
    """To every check: what each known-wrong answer shows there, and the message that goes with it."""
    checks = {cell.id: cell for cell in key.cells if role(cell) == "check"}
    for cell in checks.values():
        cell.metadata.lab["diagnoses"] = []
    for wrong in lab.cells("wrong"):
        question = wrong.metadata.lab["question"]
        answers.kernel.run(wrong.source, answers.limits.cell)
        for cell in lab.cells("check", question=question):
            got, kept = answers.probe_wrong(cell), checks[cell.id]
            if got and not same_probes(probes(kept.outputs), got, **tolerance(cell.metadata.lab)):
                kept.metadata.lab["diagnoses"].append({"probes": got, "message": wrong.metadata.lab["message"]})
        for answer in lab.cells("answer", question=question):
            answers.run(answer)


def refuse_what_can_be_guessed(cell, lab: Lab) -> None:
    """A hidden check asks; it never compares, since whoever owns the kernel owns the comparison."""
    where = f"{lab.path}: hidden check {cell.id}"
    try:
        nodes = list(ast.walk(ast.parse(cell.source)))
    except SyntaxError as error:
        raise ValueError(f"{where} is no Python: {error.msg} in line {error.lineno}") from None
    asked = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "probe"]
    compares = ["assert" for node in nodes if isinstance(node, ast.Assert)]
    compares += [node.attr if isinstance(node, ast.Attribute) else node.id for node in nodes
                 if getattr(node, "attr", getattr(node, "id", "")) in FORBIDDEN]
    compares += ["a comparison" for probe in asked for node in ast.walk(probe) if isinstance(node, ast.Compare)]
    if compares:
        raise ValueError(f"{where} compares ({compares[0]}); probe(value=...) instead")
    if not asked:
        raise ValueError(f"{where} never calls probe(name=value)")


def refuse_yes_or_no(cell, lab: Lab) -> None:
    """At least one number that nobody guesses: a fraction, or a whole number of three digits; and nothing that cannot be compared."""
    if UNKNOWN in json.dumps([output.data[MIME]["json"] for output in cell.outputs]):
        raise ValueError(f"{lab.path}: hidden check {cell.id} probes an object that is no number, text, list, array or tensor")

    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []

    found = numbers(probes(cell.outputs))
    if not any(math.isfinite(x) and (x != int(x) or abs(x) > 99) for x in found):
        raise ValueError(f"{lab.path}: hidden check {cell.id} shows {found[:5]}, which can be guessed; probe a fraction or a large number")
