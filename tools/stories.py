"""Two minutes of training on real stories, which must beat what token counts alone can do.

    python tools/stories.py FILE            prints the rows, exits 1 if a model reads no better than the unigram

The memory is reported, not judged: two minutes teach a language before they teach what to keep.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

RUN = Path("_build/stories")


def main() -> int:
    shutil.rmtree(RUN, ignore_errors=True)  # a proof starts from nothing
    command = [".venv/bin/rxt-lite", "train", str(RUN), "--stories", sys.argv[1], "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="")
    bits = {(row["arm"], row["turns"]): row["bits_per_byte"] for row in map(json.loads, done.stdout.splitlines())}
    on, unigram, gain = bits["memory_on", "all"], bits["unigram", "all"], bits["memory_gain", "next"]
    print(f"{on:.2f} bits per byte, unigram {unigram:.2f}; what happened next: memory saves {gain:+.3f} bits per byte")
    if on >= unigram:
        print("the model is no better than token counts", file=sys.stderr)
    return int(on >= unigram)


if __name__ == "__main__":
    sys.exit(main())
