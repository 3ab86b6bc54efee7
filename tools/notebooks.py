"""The notebooks as they are committed: no outputs, but for the few cells that nbval compares.

    python tools/notebooks.py strip   book/*.ipynb    drop what a run left behind
    python tools/notebooks.py outputs book/*.ipynb    run them, and store the outputs of compared cells anew
    python tools/notebooks.py compare book/*.ipynb    run them with nbval, PROFILE=ci, which compares the stored outputs

The last runs as many notebooks at a time as there are cores, at most four, each in a process of its own and without what
another has trained. (tools/build.py runs them too, with papermill.)

A compared cell carries the tag `nbval-check-output`; its output is short and the same on every machine. It keeps its
execution count too: nbval never compares a cell whose count is null.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

COMPARED = "nbval-check-output"
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
RUNS = Path("_build/notebooks")
CORES = os.cpu_count() or 1
AT_A_TIME = min(4, CORES)  # each holds about a gigabyte


def is_compared(cell) -> bool:
    return COMPARED in cell.metadata.get("tags", [])


def stripped(notebook):
    """`notebook` without what a run left behind; counts of compared cells are their places among the code cells."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict(KERNEL)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for place, cell in enumerate(code, start=1):
        compared = is_compared(cell) and cell.outputs
        cell.execution_count = place if compared else None
        cell.outputs = [without_run(output, place) for output in cell.outputs] if compared else []
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
    return notebook


def without_run(output, place: int):
    if "execution_count" in output:
        output.execution_count = place
    if "metadata" in output:
        output.metadata = nbformat.from_dict({})
    return output


def to_text(notebook) -> str:
    """The bytes of a committed notebook."""
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def strip(path: Path) -> None:
    path.write_text(to_text(stripped(nbformat.read(path, as_version=4))), encoding="utf-8")


def outputs(path: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}, coalesce_streams=True).execute()
    path.write_text(to_text(stripped(notebook)), encoding="utf-8")


def compare(path: Path) -> None:
    environment = {"RXT_PROFILE": "ci", "RXT_RUNS": str((RUNS / path.stem).resolve())}
    alone("pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", str(path), **environment)


def alone(*module_and_arguments: str, **environment: str) -> None:
    """Run a module of Python's on its share of the cores; what it says comes in one piece, and only if it fails."""
    command = [sys.executable, "-m", *module_and_arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES // AT_A_TIME), **environment}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)


def side_by_side(action: Callable[[Path], None], paths: list[Path], at_a_time: int = AT_A_TIME) -> list[Path]:
    """Do it to several notebooks at a time; those that failed."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return [path for path, wrong in zip(paths, pool.map(lambda path: attempt(action, path), paths)) if wrong]


def attempt(action: Callable[[Path], None], path: Path) -> str:
    """What went wrong, or nothing: one broken notebook must not hide the next."""
    start, wrong = time.monotonic(), ""
    try:
        action(path)
    except Exception as error:
        wrong = f"{path}: {type(error).__name__}: {error}"
    if action is not strip:
        print(wrong or f"{path}: {time.monotonic() - start:.1f} s", flush=True)
    return wrong


def main() -> int:
    actions = {"strip": strip, "outputs": outputs, "compare": compare}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    action, paths = actions[sys.argv[1]], [Path(name) for name in sys.argv[2:]]
    if action is compare:  # nothing that an earlier run trained is used again
        shutil.rmtree(RUNS, ignore_errors=True)
        failed = side_by_side(compare, paths)
    else:
        os.environ["RXT_PROFILE"] = "ci"
        failed = [path for path in paths if attempt(action, path)]
    if failed:
        print("FAILED: " + ", ".join(map(str, failed)), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
