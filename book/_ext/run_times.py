"""Local Sphinx extension: `rxt-runtimes` is a directive, the table of what each chapter takes (tools/runtimes.py measures it)."""

import json
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

PROFILES = ("ci", "cpu", "gpu")
NOT_YET = "not yet"


def table(rows: list[dict], chapters: dict[str, str]) -> list[str]:
    """Lines of Markdown; `chapters` is {name of the notebook: title}."""
    measured = {(row["chapter"], row["profile"]): row for row in rows}
    lines = ["| chapter | `ci` | `cpu` | `gpu` | memory of the GPU |", "|---|---|---|---|---|"]
    for name, title in chapters.items():
        cells = [took(measured.get((name, chosen))) for chosen in PROFILES]
        reserved = measured.get((name, "gpu"), {}).get("gpu_mb")
        lines.append(f"| [{title}]({name}.ipynb) | {' | '.join(cells)} | {memory(reserved) if reserved else NOT_YET} |")
    return lines


def took(row: dict | None) -> str:
    if row is None:
        return NOT_YET
    seconds = row["seconds"]
    return f"{seconds:.0f} s, {memory(row['peak_mb'])}" if seconds < 120 else f"{seconds / 60:.1f} min, {memory(row['peak_mb'])}"


def memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB"


def origins(rows: list[dict]) -> list[str]:
    """On what the rows of each profile were measured."""
    found = {(row["profile"], row["hardware"], row["commit"]) for row in rows}
    order = sorted(found, key=lambda origin: (PROFILES.index(origin[0]), *origin[1:]))
    return [f"- `{chosen}`: {hardware}, commit `{commit}`" for chosen, hardware, commit in order]


def chapters_of(root: Path) -> dict[str, str]:
    """{name: title} of the notebooks of the book, in its order."""
    parts = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    paths = [root / f"{page['file']}.ipynb" for part in parts for page in part["chapters"]]
    return {path.stem: title(path) for path in paths if path.exists()}


def title(path: Path) -> str:
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).split("\n")[0].removeprefix("# ")


class RunTimes(Directive):
    def run(self):
        environment = self.state.document.settings.env
        root = Path(environment.srcdir)
        results = root / "book" / "results" / "runtimes.jsonl"
        environment.note_dependency(str(results))
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
        lines = table(rows, chapters_of(root))
        lines += ["", "Measured on:", "", *origins(rows)] if rows else []
        shown = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(results)), self.content_offset, shown)
        return shown.children


def setup(app):
    app.add_directive("rxt-runtimes", RunTimes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
