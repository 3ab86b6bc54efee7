"""The modules of `js/` as one: a widget in a notebook travels as a single text, with nothing beside it to import from.

    bundle("notebook")    all of it, for anywidget
    bundle("pages")       what a page draws with
    bundle("engine")      what computes in a page, fetched when the reader asks for the model

Every module is written for itself and imports the others by name. Their text one after the other, without the imports,
is one module, as long as no two of them use the same name; a browser refuses it at once if they do.
"""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+)\.mjs";\n', re.MULTILINE)
EXPORT_FROM = re.compile(r'^export (\{[^}]*\}) from "\./([\w-]+)\.mjs";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:class|const|function) )", re.MULTILINE)
UNREAD = re.compile(r"^ *//[^\n]*\n|^ */\*\*.*?\*/\n|^ +|^\n| // [^`\n]*$", re.MULTILINE | re.DOTALL)  # comments, indents, empty lines


def source(name: str) -> str:
    return (HERE / "js" / f"{name}.mjs").read_text(encoding="utf-8")


def in_order(name: str, before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`name` and all that it imports, each after what it imports itself."""
    text = source(name)
    for needed in (*IMPORT.findall(text), *(module for _, module in EXPORT_FROM.findall(text))):
        if needed not in before:
            before = in_order(needed, before)
    return (*before, name)


@cache
def bundle(main: str) -> str:
    """One ES module that exports what js/`main`.mjs exports. Comments stay with the source."""
    parts = []
    for name in in_order(main):
        text = UNREAD.sub("", IMPORT.sub("", source(name)))
        parts.append(EXPORT_FROM.sub(r"export \1;", text if name == main else EXPORT.sub("", text)))
    head = "// Written from rxt_lite/widgets/js by rxt_lite/widgets/bundle.py: read it there, with its comments.\n"
    return head + "".join(parts)


def style() -> str:
    """The style sheet that goes with it."""
    return (HERE / "widgets.css").read_text(encoding="utf-8")
