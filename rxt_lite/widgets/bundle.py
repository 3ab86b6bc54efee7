"""The modules of `js/` as one: a widget in a notebook travels as a single text, with nothing beside it to import from.

Every module is written for itself and imports the others by name. Their text one after the other, without the imports,
is one module, as long as no two of them use the same name; a browser refuses it at once if they do.
"""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
MAIN = "widgets"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+)\.mjs";\n', re.MULTILINE)
EXPORT_FROM = re.compile(r'^export (\{[^}]*\}) from "\./[\w-]+\.mjs";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:class|const|function) )", re.MULTILINE)
COMMENT = re.compile(r"^ *//[^\n]*\n|^ */\*\*.*?\*/\n", re.MULTILINE | re.DOTALL)


def in_order(name: str, before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`name` and all that it imports, each after what it imports itself."""
    for needed in IMPORT.findall((HERE / "js" / f"{name}.mjs").read_text(encoding="utf-8")):
        if needed not in before:
            before = in_order(needed, before)
    return (*before, name)


@cache
def bundle() -> str:
    """One ES module: `render` and `mountAll` of js/widgets.mjs, and all they need. Comments stay with the source."""
    parts = []
    for name in in_order(MAIN):
        text = COMMENT.sub("", IMPORT.sub("", (HERE / "js" / f"{name}.mjs").read_text(encoding="utf-8")))
        parts.append(EXPORT_FROM.sub(r"export \1;", text if name == MAIN else EXPORT.sub("", text)))
    head = "// Written from rxt_lite/widgets/js by rxt_lite/widgets/bundle.py: read it there, with its comments.\n"
    return head + "\n".join(parts)


def style() -> str:
    """The style sheet that goes with it."""
    return (HERE / "widgets.css").read_text(encoding="utf-8")
