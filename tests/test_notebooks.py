"""The notebooks as they are committed: their shape, and nothing that a run left behind."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
import yaml
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks as tool  # noqa: E402  tools/notebooks.py, which `make strip` calls

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

CODE = re.compile(r"```(?!\{).*?```|(?<!\})`[^`\n]+`", re.DOTALL)
MYST = re.compile(r"^\s*(```+\{|~~~+\{|:::)|\{[a-z:-]+\}`", re.MULTILINE)
PICTURE_FROM_ELSEWHERE = re.compile(r"!\[[^\]]*\]\(\s*https?:|<(img|script|iframe|video)[^>]+src=[\"']?(https?:)?//", re.IGNORECASE)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def has_myst(text: str) -> bool:
    """A directive or a role, outside code."""
    return bool(MYST.search(CODE.sub("", text)))


def order_of_the_book() -> list[str]:
    toc = parse_toc_yaml(ROOT / "_toc.yml")
    return [toc.root.docname, *(item for part in toc.root.subtrees for item in part.items)]


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# ------------------------------------------------------------------------------------------------------- what is stored
@every_notebook
def test_notebook_is_valid(path):
    nbformat.validate(read(path))


@every_notebook
def test_no_cell_holds_an_invisible_character(path):
    """What a script makes of "\\approx" or "\\beta" when it forgets that a backslash begins an escape."""
    assert [cell.id for cell in read(path).cells if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", cell.source)] == []


@every_notebook
def test_notebook_holds_nothing_that_a_run_left_behind(path):
    """Outputs of unmarked cells, counts, metadata of widgets, editors or the kernel: `make strip` removes them all."""
    assert path.read_text(encoding="utf-8") == tool.to_text(tool.stripped(read(path))), f"run: make strip NOTEBOOKS=book/{path.name}"


@every_notebook
def test_compared_cells_have_something_to_compare(path):
    """nbval never compares a cell whose stored count is null, whatever it prints."""
    for cell in tagged(read(path), tool.COMPARED):
        assert cell.outputs and cell.execution_count, f"cell {cell.id}: run `make outputs`"
        assert all(output.output_type in ("stream", "execute_result") for output in cell.outputs), cell.id


@every_notebook
def test_cell_ids_are_short_and_unique(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,39}", name)] == []


@every_notebook
def test_text_is_plain_markdown(path):
    """Colab shows MyST directives and roles raw, and pages ask no other host for a picture."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not has_myst(cell.source), f"cell {cell.id}: MyST in a notebook"
            assert not PICTURE_FROM_ELSEWHERE.search(cell.source), f"cell {cell.id}: a picture from another host"


HEADINGS = re.compile(r"^(\|.*\|)\n\|[-:| ]+\|$", re.MULTILINE)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.md"))], ids=lambda path: path.name)
def test_every_column_of_a_table_has_a_heading(path):
    """A screen reader says the heading with each cell."""
    texts = [path.read_text()] if path.suffix == ".md" else [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    for heading in HEADINGS.findall("\n".join(texts)):
        assert all(name.strip() for name in heading[1:-1].split("|")), heading


# ---------------------------------------------------------------------------------------------------- how a chapter goes
@every_notebook
def test_first_cell_names_the_chapter_and_the_way(path):
    """Title, a link to Colab, and the neighbours in the table of contents, before and after."""
    first = read(path).cells[0].source
    assert re.match(r"# \S", first)
    colab = f"https://colab.research.google.com/github{urlparse(REPOSITORY).path}/blob/main/book/{path.name}"
    assert f"[Open in Colab]({colab})" in first

    book = order_of_the_book()
    place = book.index(f"book/{path.stem}")
    for word, neighbour in (("previous", book[place - 1]), ("next", book[place + 1])):
        stem = Path(neighbour).name
        suffix = ".ipynb" if (ROOT / f"{neighbour}.ipynb").exists() else ".md"
        link = rf"{word}: \[[^\]]+\]\({re.escape(stem + suffix)}\)"
        assert re.search(link, first), f"the first cell lacks: {word}: [...]({stem}{suffix})"
        assert re.search(link, read(path).cells[-1].source, re.IGNORECASE), f"the last cell lacks: {word}: [...]({stem}{suffix})"


@every_notebook
def test_chapter_closes_with_takeaways_exercises_and_references(path):
    headings = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown"), re.MULTILINE)
    assert headings[-3:] == ["Takeaways", "Exercises", "References"]


def test_setup_and_parameters_are_the_same_in_every_notebook():
    code = [[(cell.source, cell.metadata.get("tags")) for cell in read(path).cells if cell.cell_type == "code"][:2] for path in NOTEBOOKS]
    assert all(cells == code[0] for cells in code), "copy the first two code cells of another chapter"


@every_notebook
def test_parameters_cell_leaves_the_profile_open(path):
    (cell,) = tagged(read(path), "parameters")
    assert [line for line in cell.source.splitlines() if not line.startswith("#")] == ["PROFILE = None"]
    later = [c.source for c in read(path).cells if c.cell_type == "code"][2]
    assert "PROFILE = profile(PROFILE)" in later


# ------------------------------------------------------------------------------------------------------- the setup cell
SETUP_TWICE = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell

shell, asked = InteractiveShell.instance(), []
shell.register_magic_function(asked.append, "line", "pip")
if {missing}:                                   # a machine without the package, as a fresh Colab is
    import importlib.util
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "rxt_lite" and not asked else find_spec(name, *rest)
if {colab}:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
for _ in range(2):
    shell.run_cell({source!r}).raise_error()
print(asked)
"""


@pytest.mark.parametrize(
    "missing, colab, installs",
    [
        (False, False, []),
        (False, True, []),
        (True, False, []),
        (True, True, [f"install -q git+{REPOSITORY}"]),
    ],
)
def test_setup_cell_installs_the_package_once_in_colab_and_nothing_elsewhere(missing, colab, installs, tmp_path):
    source = next(cell.source for cell in read(NOTEBOOKS[0]).cells if cell.cell_type == "code")
    script = SETUP_TWICE.format(missing=missing, colab=colab, source=source)
    environment = {"IPYTHONDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == (f"{installs}\n", "", 0)


# ------------------------------------------------------------------------------------------------------- the stripping tool
def test_strip_drops_what_a_run_left_behind_and_keeps_what_is_compared():
    output = nbformat.v4.new_output("stream", name="stdout", text="3\n")
    cells = [
        nbformat.v4.new_code_cell("print(3)", id="plain", outputs=[output], execution_count=7),
        nbformat.v4.new_code_cell("print(3)", id="marked", outputs=[output], execution_count=8, metadata={"tags": [tool.COMPARED]}),
    ]
    cells[0].metadata["colab"] = {"base_uri": "https://localhost:8080/"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {}, "accelerator": "GPU"})

    plain, marked = tool.stripped(notebook).cells

    assert (plain.outputs, plain.execution_count, plain.metadata) == ([], None, {})
    assert (marked.outputs, marked.execution_count) == ([output], 2)
    assert tool.stripped(notebook).metadata == tool.KERNEL
    assert tool.to_text(tool.stripped(tool.stripped(notebook))) == tool.to_text(tool.stripped(notebook))


@pytest.mark.parametrize(
    "text, is_myst",
    [
        ("```{note}\nhello\n```", True),
        (":::{note}\nhello\n:::", True),
        ("as in {cite}`filipek2025rxt`", True),
        ("```python\nprint(f\"{x}\")\n```", False),
        ("the code `{name}` and $\\frac{a}{b}$", False),
    ],
)
def test_what_counts_as_myst(text, is_myst):
    assert has_myst(text) is is_myst
