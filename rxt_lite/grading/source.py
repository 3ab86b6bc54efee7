"""A lab's one source: a notebook whose cells carry `lab` in their metadata.

    role      cell      what it is                                                              student   key
    setup     code      (no metadata needed) imports and data                                   yes       yes
    answer    code      begins with "# answer: q1"; the solution stands between the markers     without   without
    visible   code      self-checks with messages, worth nothing                                yes       never run
    check     code      hidden: `points`, `hint`; calls probe(name=value); SECRET is a number   no        yes
    open      markdown  begins with "<!-- answer: q7 -->"; `points`, `rubric`; graded by hand   yes       yes
    wrong     code      a known-wrong answer: `loses` points, `message`                         no        as a diagnosis

Every role but setup names its `question`; an answer may give a `title`. The notebook's own metadata hold
`lab: {"name", "title", "library"}`: `library` is true where rxt_lite may be imported while grading.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

BEGIN, END, GAP = "# solution", "# end of solution", "...  # your answer"
MARKER = re.compile(r"^[ \t]*(?:#|<!--)[ \t]*answer:[ \t]*([A-Za-z0-9_-]+)", re.MULTILINE)
ROLES = {"setup": "code", "answer": "code", "visible": "code", "check": "code", "wrong": "code", "open": "markdown"}
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}


@dataclass(frozen=True)
class Lab:
    """A source, a release or a key: the same cells, more or fewer of them."""

    notebook: nbformat.NotebookNode
    path: Path

    @property
    def about(self) -> dict:
        return self.notebook.metadata.lab

    @property
    def name(self) -> str:
        return self.about["name"]

    def cells(self, *roles: str, question: str | None = None) -> list:
        return [cell for cell in self.notebook.cells
                if role(cell) in roles and (question is None or cell.metadata.lab.get("question") == question)]

    @cached_property
    def questions(self) -> dict[str, dict]:
        """{"q1": {"title", "points", "manual"}} in the order of the notebook."""
        found = {}
        for cell in self.cells("answer", "open"):
            about, name = cell.metadata.lab, cell.metadata.lab["question"]
            points = sum(check.metadata.lab["points"] for check in self.cells("check", question=name))
            manual = role(cell) == "open"
            found[name] = {"title": about.get("title", name), "points": about["points"] if manual else points, "manual": manual}
        return found

    @property
    def points(self) -> float:
        return sum(question["points"] for question in self.questions.values())


def role(cell) -> str:
    """The role of a cell; plain text has none."""
    return cell.metadata.get("lab", {}).get("role", "setup" if cell.cell_type == "code" else "")


def read_lab(path: Path) -> Lab:
    """A source or a key, with its mistakes named.

    Raises:
        ValueError: no lab notebook, a cell without its metadata, or a question that cannot be graded
    """
    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is no notebook ({type(error).__name__}); give a lab's source or key") from None
    if not {"name", "title"} <= set(notebook.metadata.get("lab", {})):
        raise ValueError(f"{path} is no lab: its metadata lack lab: {{name, title}}")
    lab = Lab(notebook, path)
    for cell in notebook.cells:
        complain(cell, path)
    for name, question in lab.questions.items():
        if not question["points"] > 0:
            raise ValueError(f"{path}: question {name} has no points; give it a check cell with points, or make it an open question")
    for cell in lab.cells("visible", "check", "wrong"):
        if cell.metadata.lab["question"] not in lab.questions:
            raise ValueError(f"{path}: cell {cell.id} belongs to {cell.metadata.lab['question']}, which has no answer cell")
    return lab


def complain(cell, path: Path) -> None:
    """What a cell of this role must have."""
    kind, about = role(cell), cell.metadata.get("lab", {})
    needs = {"answer": {"question"}, "visible": {"question"}, "check": {"question", "points", "hint"},
             "open": {"question", "points", "rubric"}, "wrong": {"question", "loses", "message"}}.get(kind, set())
    if kind and (kind not in ROLES or ROLES[kind] != cell.cell_type):
        raise ValueError(f"{path}: cell {cell.id} has role {kind!r} and type {cell.cell_type}; roles are {ROLES}")
    if needs - set(about):
        raise ValueError(f"{path}: cell {cell.id} is a {kind} cell and lacks {sorted(needs - set(about))} in its metadata")
    if kind in ("answer", "open") and MARKER.findall(cell.source.split("\n", 1)[0]) != [about["question"]]:
        raise ValueError(f"{path}: cell {cell.id} must begin with the marker answer: {about['question']}")


def without_solution(source: str) -> str:
    """An answer cell as students get it: a gap where the solution stands."""
    lines, inside = [], False
    for line in source.split("\n"):
        if line.strip() == BEGIN:
            inside = True
            lines.append(line[: len(line) - len(line.lstrip())] + GAP)
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    if inside or GAP not in "\n".join(lines):
        raise ValueError(f"an answer cell needs both markers, {BEGIN!r} and {END!r}: {source[:60]!r}")
    return "\n".join(lines)


def release(lab: Lab) -> nbformat.NotebookNode:
    """The student's notebook: no solution, no hidden check, no wrong answer, no metadata that tells of them."""
    notebook = nbformat.v4.new_notebook(metadata={**KERNEL, "lab": {"name": lab.name, "title": lab.about["title"]}})
    for cell in lab.notebook.cells:
        kind = role(cell)
        if kind in ("check", "wrong"):
            continue
        new = nbformat.from_dict({**cell, "metadata": {}})
        if kind in ("answer", "visible", "open"):
            new.metadata = nbformat.from_dict({"lab": {"role": kind, "question": cell.metadata.lab["question"]}})
        if kind == "answer":
            new.source = without_solution(cell.source)
        if cell.cell_type == "code":
            new.outputs, new.execution_count = [], None
        notebook.cells.append(new)
    return notebook


def to_text(notebook) -> str:
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"
