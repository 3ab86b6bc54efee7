"""CI must be able to fail. On a copy of the repository with a short table of contents, the commands of .ci/run are green,
and each planted fault turns one of them red."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", ".pytest_cache", ".ruff_cache", "*.egg-info", "runs")
CHAPTER = "book/transcript-or-state.ipynb"
SHORT_TOC = """
format: jb-book
root: book/intro
chapters:
  - file: book/notation
  - file: book/transcript-or-state
  - file: book/log
  - file: book/references
"""
PAGE_TESTS = "tests/test_pages.py -k 'no_other_host or no_file_on_another or lead_somewhere'"


def make(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
    """One of CI's commands in a copy, with the environment that is installed already."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "RXT_P", "RXT_RUNS"))}
    command = ["make", "--old-file=.venv/.installed", *arguments]
    return subprocess.run(command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(done: subprocess.CompletedProcess) -> str:
    return f"rc {done.returncode}\n{done.stdout[-5000:]}"


@pytest.fixture(scope="module")
def green(tmp_path_factory) -> Path:
    """The copy, built once, so that the faulty copies find their unchanged pages executed."""
    copy = tmp_path_factory.mktemp("a copy") / "rxt lite"  # with a space in its path, as a reader's may have
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    (copy / ".venv").symlink_to(sys.prefix)
    (copy / "_toc.yml").write_text(SHORT_TOC)
    for notebook in (copy / "book").glob("*.ipynb"):
        if notebook.name != Path(CHAPTER).name:
            notebook.unlink()
    left_out = re.compile(r"\]\((?!(?:transcript-or-state|notation|references)\.)[a-z/-]+\.(ipynb|md)(#[^)]*)?\)")
    for page in [copy / CHAPTER, *(copy / "book").glob("*.md")]:  # what links to a page left out, links to the log
        page.write_text(left_out.sub("](log.md)", page.read_text()))
    (copy / "book" / "redirects.yml").write_text("book/index: book/intro\nbook/glossary: book/notation\n")
    return copy


@pytest.fixture
def faulty(green, tmp_path) -> Path:
    copy = tmp_path / "rxt lite"
    shutil.copytree(green, copy, symlinks=True)
    return copy


def plant(copy: Path, change) -> None:
    """Change the code cells of the chapter, a list of dicts, in place."""
    notebook = json.loads((copy / CHAPTER).read_text())
    change([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
    (copy / CHAPTER).write_text(json.dumps(notebook))


def test_these_are_the_commands_of_ci():
    ci = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in ci
    for command in ("make lint", "make test", "make notebooks", "make book RXT_PROFILE=ci"):
        assert re.search(rf"^{command}$", ci, re.MULTILINE), command
    assert "run: bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_green_before_anything_is_planted(green):
    for command in (["lint"], ["notebooks"], ["book", "RXT_PROFILE=ci"], ["test", f"TESTS={PAGE_TESTS}"]):
        done = make(green, *command)
        assert done.returncode == 0, said(done)


def test_failing_notebook_is_red_every_time(faulty):
    plant(faulty, lambda cells: cells[-1].update(source="raise ValueError('planted')"))
    for command in (["notebooks"], ["book", "RXT_PROFILE=ci"], ["book", "RXT_PROFILE=ci"]):
        done = make(faulty, *command)
        assert done.returncode != 0 and "planted" in done.stdout, said(done)


def test_wrong_stored_output_is_red(faulty):
    def lie(cells):
        compared = next(cell for cell in cells if "nbval-check-output" in cell["metadata"].get("tags", []))
        compared["outputs"][0]["text"] = "what nobody printed\n"

    plant(faulty, lie)
    done = make(faulty, "notebooks")
    assert done.returncode != 0 and "what nobody printed" in done.stdout, said(done)


def test_broken_link_is_red(faulty):
    page = faulty / "book" / "intro.md"
    page.write_text(page.read_text() + "\n[a page](nowhere.md)\n")
    done = make(faulty, "book", "RXT_PROFILE=ci")
    assert done.returncode != 0 and "nowhere.md" in done.stdout, said(done)


def test_broken_html_link_and_outside_request_are_red(faulty):
    """Neither is a warning to Sphinx: the page tests find them."""
    page = faulty / "book" / "intro.md"
    planted = '<a href="nowhere.html">a page</a> <img src="https://example.org/x.png" alt="a picture that another host would send">'
    page.write_text(page.read_text() + f"\n{planted}\n")
    done = make(faulty, "test", f"TESTS={PAGE_TESTS}")
    assert done.returncode != 0, said(done)
    for red in ("test_internal_links_and_anchors_lead_somewhere", "test_pages_name_no_file_on_another_host"):
        assert f"FAILED tests/test_pages.py::{red}" in done.stdout, said(done)
    if "no Chromium" not in done.stdout:
        assert "FAILED tests/test_pages.py::test_page_asks_no_other_host[book/intro.html]" in done.stdout, said(done)


def test_lint_is_red_on_an_unused_import(faulty):
    (faulty / "rxt_lite" / "planted.py").write_text("import os\n")
    done = make(faulty, "lint")
    assert done.returncode != 0 and "planted.py" in done.stdout, said(done)
