"""Execute every notebook and build the site, every warning an error.

    python tools/build.py                       _build/html, profile from RXT_PROFILE, else cpu
    python tools/build.py --into _build/test    the same somewhere else: _build/test/_build/html

Outputs of notebooks are cached by the text of their cells alone. They also depend on the library, on stored
results and on the profile, so the cache and the models that notebooks trained are deleted when any of these changed.
A build that has none takes over what another one of the same key has executed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rxt_lite.profile import profile

# What a notebook's output depends on, beside its own cells.
SOURCES = ("rxt_lite/**/*", "book/results/**/*", "constraints.txt")
BUILDS = ("_build", "_build/test/_build")  # the reader's, and that of the page tests


def fingerprint(root: Path, profile_name: str) -> str:
    """A hash over everything outside the notebooks that their outputs depend on."""
    digest = hashlib.sha256(f"{profile_name} {sys.version}".encode())
    for file in sorted({file for pattern in SOURCES for file in root.glob(pattern)}):
        if file.is_file() and "__pycache__" not in file.parts and file.name != "runtimes.jsonl":  # measured on notebooks, not read by them
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def forget_what_is_stale(build: Path, key: str) -> None:
    """Delete cached outputs and trained models that were made under another key."""
    stored = build / "key"
    if not stored.exists() or stored.read_text() != key:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
        shutil.rmtree(build / "runs", ignore_errors=True)
        build.mkdir(parents=True, exist_ok=True)
        stored.write_text(key)


def take_over(build: Path, key: str) -> None:
    """Begin with the cached outputs of the other build, if they were made under the same key."""
    cache = build / ".jupyter_cache"
    for other in map(Path, BUILDS):
        if not cache.exists() and (other / ".jupyter_cache").exists() and (other / "key").read_text() == key:
            shutil.copytree(other / ".jupyter_cache", cache)


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
    failed = subprocess.run([sys.executable, "-c", command, *options], env=environment).returncode
    if failed:
        print("\nThe book was NOT built: see the warnings above.", file=sys.stderr)
        return 1
    print(f"\nThe book (profile {chosen}) is built. Open it:\n    {(build / 'html' / 'index.html').as_uri()}\nor serve it: make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
