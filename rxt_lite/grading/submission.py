"""What a student handed in, read without trust: text in, plain cells out. And which of its cells are answers.

An answer cell is found by its id, else by its marker line (Colab and old formats drop ids), else by the function it
defines. Nothing else of the file counts: not its outputs, tags, points, kernel or metadata.
"""

import ast
import json
import re
from dataclasses import dataclass, field

from rxt_lite.grading.source import MARKER, Lab, role

LARGEST = 20 * 2**20          # bytes of a submission
LONGEST_CELL = 2**20          # characters
MOST_CELLS = 1000
INSTALL = re.compile(r"^([ \t]*)[!%][ \t]*(pip|pip3|conda|mamba|apt|apt-get|uv)\b.*$", re.MULTILINE)  # \s would cross lines: n * n steps
MAGIC = re.compile(r"^[ \t]*[!%].*$", re.MULTILINE)


class Unreadable(Exception):
    """The file is no notebook; the message says why, in our own words."""


@dataclass(frozen=True)
class Cell:
    id: str
    kind: str
    source: str


@dataclass
class Step:
    """One cell of a run: setup, extra, answer or check, and the question it belongs to."""

    role: str
    source: str
    question: str = ""
    cell: object = None


@dataclass
class Picked:
    """The answers of a submission and the student's other cells, in the student's order."""

    steps: list[Step]
    answers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_submission(data: bytes) -> list[Cell]:
    """The cells of a notebook, formats 2 to 4.

    Raises:
        Unreadable: too large, not UTF-8, no JSON, or no notebook
    """
    if len(data) > LARGEST:
        raise Unreadable(f"the file has more than {LARGEST // 2**20} MB; clear the outputs and hand it in again")
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("the file is no UTF-8 text; save it as a notebook (.ipynb) and hand it in again") from None
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable("the file is no valid JSON; download it as .ipynb and hand it in again") from None
    if not isinstance(notebook, dict):
        raise Unreadable("the file is JSON, but no notebook")
    raw = notebook.get("cells")
    if raw is None and isinstance(notebook.get("worksheets"), list):  # formats 2 and 3
        raw = [cell for sheet in notebook["worksheets"] if isinstance(sheet, dict) for cell in as_list(sheet.get("cells"))]
    if not isinstance(raw, list):
        raise Unreadable("the file is JSON, but no notebook: it has no list of cells")
    return [cell for cell in map(plain_cell, raw[:MOST_CELLS]) if cell.source]


def as_list(value) -> list:
    return value if isinstance(value, list) else []


def plain_cell(raw) -> Cell:
    """Text only, whatever stands there; half a surrogate becomes a question mark."""
    if not isinstance(raw, dict):
        return Cell("", "", "")
    source = raw.get("source", raw.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    source = source if isinstance(source, str) and len(source) <= LONGEST_CELL else ""
    kind, name = raw.get("cell_type"), raw.get("id")
    return Cell(name if isinstance(name, str) else "", kind if isinstance(kind, str) else "",
                source.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n"))


def bare(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().split("\n"))


def defined_names(source: str) -> set[str]:
    """Functions and classes at the top level; none if it is not Python."""
    try:
        body = ast.parse(MAGIC.sub("", source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def apart(key: Lab, cells: list[Cell]) -> list[Cell]:
    """Cells that hold several answers, once for each of them: split at their markers, else repeated for each function asked for."""
    found = []
    for cell in cells:
        lines = cell.source.split("\n")
        starts = [n for n, line in enumerate(lines) if line.startswith("#") and MARKER.match(line)] if cell.kind == "code" else []
        parts = ["\n".join(lines[a:b]) for a, b in zip([0, *starts[1:]], [*starts[1:], len(lines)])]
        whole = len({MARKER.match(lines[n])[1] for n in starts}) < 2 or not all(map(parses, parts))
        found += [cell] if whole else [Cell(cell.id if n == 0 else "", cell.kind, part) for n, part in enumerate(parts)]
    there = candidates(key, found)
    taken = {id(cell) for some in there.values() for cell, _ in some}
    for answer in key.cells("answer"):
        names, question = defined_names(answer.source), answer.metadata.lab["question"]
        for cell in [] if there[question] or not names else list(found):
            if id(cell) in taken and cell.kind == "code" and names <= defined_names(cell.source):
                found.insert(found.index(cell) + 1, Cell("", "code", f"# answer: {question}\n{cell.source}"))
                break
    return found


def parses(source: str) -> bool:
    try:
        ast.parse(MAGIC.sub("", source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def candidates(key: Lab, cells: list[Cell]) -> dict[str, list[tuple[Cell, str]]]:
    """For every question the cells that may be its answer, in order, and how each was found: id, marker or name."""
    found = {name: [] for name in key.questions}
    ids = {cell.id: cell.metadata.lab["question"] for cell in key.cells("answer", "open")}
    kinds = {name: "markdown" if question["manual"] else "code" for name, question in key.questions.items()}
    for cell in cells:
        marked = MARKER.search(cell.source)
        name = ids.get(cell.id) or (marked and marked[1])
        if name in found and cell.kind == kinds[name]:
            found[name].append((cell, "id" if cell.id in ids else "marker"))
    taken = {id(cell) for some in found.values() for cell, _ in some}
    for answer in key.cells("answer"):
        names, question = defined_names(answer.source), answer.metadata.lab["question"]
        if not found[question] and names:
            found[question] = [(cell, "name") for cell in cells
                               if cell.kind == "code" and id(cell) not in taken and names <= defined_names(cell.source)]
    return found


def pick(key: Lab, cells: list[Cell]) -> Picked:
    """Choose the answers, and keep the student's other code where it stood, as help without points."""
    picked, chosen, dropped, cells = Picked([]), {}, set(), apart(key, cells)
    releases = {cell.metadata.lab["question"]: bare(cell.source) for cell in key.cells("answer", "open")}
    for question, some in candidates(key, cells).items():
        touched = [(cell, how) for cell, how in some if bare(cell.source) != releases[question]]
        if some and len(some) > 1:
            picked.notes.append(f"{question}: found {len(some)} times; the first one that was filled in counts")
        if touched:
            chosen[id(touched[0][0])] = question
            picked.answers[question] = touched[0][0].source
            if touched[0][1] == "name":
                picked.notes.append(f"{question}: its cell had lost its marker and was found by the function it defines")
        dropped |= {id(cell) for cell, _ in some}
    picked.steps = in_students_order(key, cells, chosen, dropped)
    return picked


def in_students_order(key: Lab, cells: list[Cell], chosen: dict[int, str], dropped: set[int]) -> list[Step]:
    """Answers and extra cells as the student ordered them, each answer after the key's setup that precedes it there,
    and the checks of a question once the next answer begins."""
    known = {bare(cell.source) for cell in key.cells("setup", "visible")}
    pending = [cell for cell in key.notebook.cells if role(cell) in ("setup", "answer")]
    steps, current = [], ""

    def checks():
        return [Step("check", cell.source, current, cell) for cell in key.cells("check", question=current) if current]

    def setup_before(question: str | None) -> list[Step]:
        places = [n for n, cell in enumerate(pending) if role(cell) == "answer" and cell.metadata.lab["question"] == question]
        before = pending[: places[0]] if places else pending if question is None else []
        pending[: len(before)] = [cell for cell in before if role(cell) == "answer"]
        return [Step("setup", cell.source) for cell in before if role(cell) == "setup"]

    first = next((cell.metadata.lab["question"] for cell in pending if role(cell) == "answer"), None)
    steps += setup_before(first)
    for cell in cells:
        question = chosen.get(id(cell))
        if question and key.questions[question]["manual"]:
            continue
        if question:
            steps += [*checks(), *setup_before(question), Step("answer", cell.source, question)]
            current = question
        elif cell.kind == "code" and id(cell) not in dropped and bare(cell.source) not in known:
            steps.append(Step("extra", without_installs(cell.source), current))
    return [*steps, *checks()]


def without_installs(source: str) -> str:
    """There is no network: installing would only wait for it."""
    return INSTALL.sub(r"\1pass", source)
