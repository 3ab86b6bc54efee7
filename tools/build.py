"""Execute every notebook and build the site, every warning an error.

    python tools/build.py                       _build/html, profile from RXT_PROFILE, else cpu
    python tools/build.py --into _build/test    the same somewhere else: _build/test/_build/html

papermill executes the notebooks, several at a time, the slowest first; jupyter-book then finds all their
outputs in its cache. Cached outputs are found by the text of their cells alone. They also depend on the library, on stored
results and on the profile, so the cache and the models that notebooks trained are deleted when any of these changed.
A build that has none takes over what another one of the same key has executed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event, Lock

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from notebooks import AT_A_TIME, alone, side_by_side
from runtimes import MEASURE, MEASURED, RESULTS

from rxt_lite.profile import profile

# What a notebook's output depends on, beside its own cells.
SOURCES = ("rxt_lite/**/*", "book/results/**/*", "constraints.txt")
BUILDS = ("_build", "_build/test/_build")  # the reader's, and that of the page tests
AFTER = {"interaction-tuning": "joint-pretraining", "recall-by-distance": "reactive-transformer"}  # go on with the model of another
TIMEOUT = "3600"  # seconds a cell may take: training cells run for minutes


def fingerprint(root: Path, profile_name: str) -> str:
    """A hash over everything outside the notebooks that their outputs depend on."""
    digest = hashlib.sha256(f"{profile_name} {sys.version}".encode())
    for file in sorted({file for pattern in SOURCES for file in root.glob(pattern)}):
        if file.is_file() and "__pycache__" not in file.parts and file.name != RESULTS.name:  # measured on notebooks, not read by them
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def forget_what_is_stale(build: Path, key: str) -> None:
    """Delete cached outputs and trained models that were made under another key."""
    stored = build / "key"
    if not stored.exists() or stored.read_text() != key:
        for made in (".jupyter_cache", "executed", "runs"):
            shutil.rmtree(build / made, ignore_errors=True)
        build.mkdir(parents=True, exist_ok=True)
        stored.write_text(key)


def take_over(build: Path, key: str) -> None:
    """Begin with the cached outputs of the other build, if they were made under the same key."""
    cache = build / ".jupyter_cache"
    for other in map(Path, BUILDS):
        if not cache.exists() and (other / ".jupyter_cache").exists() and (other / "key").read_text() == key:
            shutil.copytree(other / ".jupyter_cache", cache)


def execute(build: Path, chosen: str) -> list[Path]:
    """Put the outputs of all chapters into the cache, as far as they are not there, each as soon as it has them; those that failed."""
    (build / "executed").mkdir(parents=True, exist_ok=True)
    one_at_a_time = Lock()

    paths = [path for path in slowest_first(chosen) if not cached(build, path)]
    finished = {path.stem: Event() for path in paths}

    def run(path: Path) -> None:
        if AFTER.get(path.stem) in finished:  # it stands earlier in the queue, so it has at least begun
            finished[AFTER[path.stem]].wait()
        try:
            put_outputs(path)
        finally:
            finished[path.stem].set()

    def put_outputs(path: Path) -> None:
        out = build / "executed" / path.name
        nbformat.write(measured(path), out)
        options = ["-p", "PROFILE", chosen, "--cwd", str(path.parent), "--no-progress-bar", "--execution-timeout", TIMEOUT]
        alone("papermill", *options, str(out), str(out), RXT_PROFILE=chosen, RXT_RUNS=str(build / "runs"))
        with one_at_a_time:
            ran = CacheBundleIn(with_outputs(path, out), str(path.resolve()))
            get_cache(build / ".jupyter_cache").cache_notebook_bundle(ran, check_validity=False, overwrite=True)

    return side_by_side(run, paths, 1 if chosen == "gpu" else AT_A_TIME)  # of a graphics card there is one


def measured(path: Path) -> nbformat.NotebookNode:
    """The notebook, and a last cell that says how much memory it took."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MEASURE, metadata={"tags": [MEASURED]}))
    return notebook


def with_outputs(path: Path, executed: Path) -> nbformat.NotebookNode:
    """The notebook as it is committed, with the outputs of the one that papermill ran: by other metadata it would not be found."""
    notebook, ran = nbformat.read(path, as_version=4), nbformat.read(executed, as_version=4)
    cells = {cell.id: cell for cell in ran.cells}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = cells[cell.id].outputs, cells[cell.id].execution_count
    if "widgets" in ran.metadata:
        notebook.metadata.widgets = ran.metadata.widgets
    return notebook


def cached(build: Path, path: Path) -> bool:
    try:
        return bool(get_cache(build / ".jupyter_cache").match_cache_notebook(nbformat.read(path, as_version=4)))
    except KeyError:
        return False


def slowest_first(chosen: str) -> list[Path]:
    """The chapters by their measured run times, one that nobody has measured first; those that go on with another's model last."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    seconds = {row["chapter"]: row["seconds"] for row in map(json.loads, lines) if row["profile"] == chosen}
    order = lambda path: (path.stem in AFTER, -seconds.get(path.stem, float("inf")))  # noqa: E731
    return sorted(sorted(Path("book").glob("*.ipynb")), key=order)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("."), help="folder that gets _build/ (default: here)")
    into = parser.parse_args().into.resolve()

    chosen = profile(os.environ.get("RXT_PROFILE") or "cpu")
    build = into / "_build"
    key = fingerprint(Path("."), chosen)
    forget_what_is_stale(build, key)
    take_over(build, key)
    shutil.rmtree(build / "html", ignore_errors=True)  # a page that has left the book leaves the site too

    # --all: without it a second run of a failing book says "build succeeded", because warnings of unchanged pages
    # are not repeated.
    command = "from jupyter_book.cli.main import main; main()"
    options = ["build", "--all", "-W", "-n", "--keep-going", "--path-output", str(into), "."]
    environment = {**os.environ, "RXT_PROFILE": chosen, "RXT_RUNS": str(build / "runs")}
    failed = execute(build, chosen)
    if failed:
        print(f"\nThe book was NOT built. FAILED: {', '.join(map(str, failed))}", file=sys.stderr)
        return 1
    if subprocess.run([sys.executable, "-c", command, *options], env=environment).returncode:
        print("\nThe book was NOT built: see the warnings above.", file=sys.stderr)
        return 1
    print(f"\nThe book (profile {chosen}) is built. Open it:\n    {(build / 'html' / 'index.html').as_uri()}\nor serve it: make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
