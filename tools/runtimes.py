"""What every chapter takes: seconds and memory, each notebook alone, with nothing that an earlier one trained.

    make runtimes RXT_PROFILE=ci                      every chapter with this profile (ci | cpu | gpu; default: by device)
    python tools/runtimes.py --profile ci book/experts.ipynb

Writes book/results/runtimes.jsonl, a row for each chapter and profile; rows of other chapters and profiles stay. The book shows
them on its page of run times. Times are those of the whole notebook, its imports included. Memory is the most that the kernel has held at
once, measured by the kernel itself at its end; on a GPU also the most that PyTorch has reserved there.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from rxt_lite.profile import PROFILES, profile

RESULTS = Path("book/results/runtimes.jsonl")
RUNS = Path("_build/runtimes")
# The peak of a process: VmHWM, since ru_maxrss begins with what the parent had. Elsewhere ru_maxrss, in bytes on a Mac.
MEASURE = """
import json, pathlib, resource, sys, torch
status = pathlib.Path("/proc/self/status")
if status.exists():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
gpu = torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else None
print(json.dumps({"peak_mb": round(peak), "gpu_mb": gpu and round(gpu), "gpu": torch.cuda.get_device_name() if gpu is not None else None,
                  "threads": torch.get_num_threads()}))
"""


def measure(path: Path, chosen: str) -> dict:
    """Run a notebook in a fresh kernel; the row of what it took. Raises what a cell raises."""
    runs = (RUNS / path.stem).resolve()
    shutil.rmtree(runs, ignore_errors=True)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MEASURE))
    client = NotebookClient(notebook, timeout=7200, resources={"metadata": {"path": str(path.parent)}})
    start = time.monotonic()
    client.execute(env={**os.environ, "RXT_PROFILE": chosen, "RXT_RUNS": str(runs)})
    seconds = time.monotonic() - start
    shutil.rmtree(runs, ignore_errors=True)
    said = "".join(output.text for output in notebook.cells[-1].outputs if output.output_type == "stream" and output.name == "stdout")
    about = json.loads(said)
    hardware = about.pop("gpu") or f"{platform.machine()} processor, {about['threads']} threads"
    return {"chapter": path.stem, "profile": chosen, "seconds": round(seconds, 1), **about, "hardware": hardware}


def keep(row: dict, results: Path = RESULTS) -> None:
    """Put a row in the place of the older one of its chapter and profile."""
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    rows = [old for old in rows if (old["chapter"], old["profile"]) != (row["chapter"], row["profile"])] + [row]
    rows.sort(key=lambda row: (PROFILES.index(row["profile"]), row["chapter"]))
    results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="", help="ci, cpu or gpu; default: RXT_PROFILE, else by device")
    parser.add_argument("notebooks", type=Path, nargs="+")
    asked = parser.parse_args()
    chosen = profile(asked.profile or None)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    failed = []
    for path in asked.notebooks:
        try:
            row = {**measure(path, chosen), "commit": commit or "none"}
        except Exception as error:  # one broken notebook must not hide the next
            failed.append(path.stem)
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        keep(row)
        print(f"{path.stem}: {row['seconds']} s, {row['peak_mb']} MB, of the GPU {row['gpu_mb'] or 0} MB", flush=True)
    if failed:
        print("FAILED, no row written: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
