"""What every chapter takes, seconds and memory: taken down by the build, kept here.

    make runtimes RXT_PROFILE=ci      build the book with this profile, then put what its chapters took into the table

Each notebook ends, while it is built, with a cell that says the most memory its kernel has held at once; on a GPU also the
most that PyTorch has reserved there. Seconds are papermill's, from the first cell to the last. Rows of other chapters and
profiles stay in book/results/runtimes.jsonl, which the book shows on its page of run times.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import nbformat

from rxt_lite.profile import PROFILES

RESULTS = Path("book/results/runtimes.jsonl")
EXECUTED = Path("_build/executed")  # where tools/build.py leaves the notebooks that it ran
MEASURED = "measured"  # the tag of the cell it adds
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


def row_of(path: Path) -> dict:
    """The row of an executed notebook; ValueError if it did not run to its end."""
    notebook = nbformat.read(path, as_version=4)
    last = notebook.cells[-1]
    said = "".join(output.text for output in last.outputs if output.output_type == "stream" and output.name == "stdout")
    if MEASURED not in last.metadata.get("tags", []) or not said:
        raise ValueError(f"{path} did not run to its end; build the book again")
    about, run = json.loads(said), notebook.metadata.papermill
    hardware = about.pop("gpu") or f"{platform.machine()} processor, {about['threads']} threads"
    return {"chapter": path.stem, "profile": run.parameters.PROFILE, "seconds": round(run.duration, 1), **about, "hardware": hardware}


def keep(row: dict, results: Path = RESULTS) -> None:
    """Put a row in the place of the older one of its chapter and profile."""
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    rows = [old for old in rows if (old["chapter"], old["profile"]) != (row["chapter"], row["profile"])] + [row]
    rows.sort(key=lambda row: (PROFILES.index(row["profile"]), row["chapter"]))
    results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for path in sorted(EXECUTED.glob("*.ipynb")):
        row = {**row_of(path), "commit": commit or "none"}
        keep(row)
        print(f"{path.stem}, {row['profile']}: {row['seconds']} s, {row['peak_mb']} MB, of the GPU {row['gpu_mb'] or 0} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
