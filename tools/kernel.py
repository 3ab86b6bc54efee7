"""Translate the SIMD kernel and write it, as base64, into the module that carries it.

    python tools/kernel.py          rxt_lite/widgets/kernel.wat -> rxt_lite/widgets/js/kernel.mjs
"""

import base64
import re
from pathlib import Path

WIDGETS = Path(__file__).resolve().parent.parent / "rxt_lite" / "widgets"
MODULE = WIDGETS / "js" / "kernel.mjs"
CARRIED = re.compile(r'(?<=^const WASM = ")[^"]*(?=";$)', re.MULTILINE)


def translated() -> str:
    """kernel.wat as a WebAssembly module in base64."""
    from wasmtime import wat2wasm

    return base64.b64encode(bytes(wat2wasm((WIDGETS / "kernel.wat").read_text()))).decode()


def carried() -> str:
    """What the module carries now."""
    return CARRIED.search(MODULE.read_text())[0]


if __name__ == "__main__":
    MODULE.write_text(CARRIED.sub(translated(), MODULE.read_text()))
    print(f"{len(carried())} characters")
