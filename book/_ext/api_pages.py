"""Local Sphinx extension: docstrings of rxt_lite as pages, by way of sphinx.ext.autodoc.

The docstrings are plain text, made to be read in the file. So what is set in columns there (tables of shapes, equations,
sessions with >>>) stands verbatim on the page, and the rest is prose. Of a frozen bag of numbers (a dataclass, a named
tuple) its fields are shown as they are written, for their comments say what they mean.
"""

import ast
import dataclasses
import inspect
import re
import textwrap

IN_COLUMNS = re.compile(r"\S {2,}\S|^>>> ")


# ------------------------------------------------------------------------------------------------- a docstring as RST
def to_rst(lines: list[str]) -> list[str]:
    """Prose escaped, blocks in columns as literal blocks."""
    out: list[str] = []
    for block in blocks(lines):
        verbatim = any(line.startswith(" ") or IN_COLUMNS.search(line) for line in block)
        out += literal(block) if verbatim else [inline(line) for line in block]
        out.append("")
    return out


def blocks(lines: list[str]) -> list[list[str]]:
    """Paragraphs, and what is indented below them, with the empty lines inside it."""
    found: list[list[str]] = []
    ended = True
    for line in lines:
        if not line.strip():
            ended = True
            continue
        before = found[-1] if found else [""]
        if line.startswith(" ") and before[0].startswith(" "):
            before += [""] * ended + [line]
        elif ended or before[0].startswith(" ") or (line.startswith(" ") and before[-1].endswith(":")):
            found.append([line])
        else:
            before.append(line)
        ended = False
    return found


def literal(block: list[str]) -> list[str]:
    body = textwrap.dedent("\n".join(block)).split("\n")
    return [".. code-block:: text", "   :class: docstring", "", *(f"   {line}" if line else "" for line in body)]


def inline(line: str) -> str:
    """A line of prose: `code` as code, everything else as it stands."""
    parts = re.split(r"`([^`]+)`", line)
    text = "".join(f"\\ ``{part}``\\ " if place % 2 else re.sub(r"([\\*_|`])", r"\\\1", part) for place, part in enumerate(parts))
    return "\\" + text if re.match(r"[-+]\s", text) else text  # a minus is no bullet


# ------------------------------------------------------------------------------------------------- what stands on a page
def fields_of(thing) -> list[str]:
    """The lines of a dataclass or named tuple that name its fields, with their comments; [] for anything else."""
    named = inspect.isclass(thing) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_field_defaults"))
    if not named:
        return []
    source = textwrap.dedent(inspect.getsource(thing))
    body = ast.parse(source).body[0].body
    fields = [node for node in body if isinstance(node, ast.AnnAssign)]
    if not fields:
        return []
    return textwrap.dedent("\n".join(source.split("\n")[fields[0].lineno - 1 : fields[-1].end_lineno])).split("\n")


def process_docstring(app, what, name, thing, options, lines):
    text = list(lines)
    if what == "module":
        path = name.replace(".", "/") + ("/__init__" if hasattr(thing, "__path__") else "") + ".py"
        lines[:] = [f"``{path}`` (`source <{app.config.html_theme_options['repository_url']}/blob/main/{path}>`__)", "", *to_rst(text)]
        return
    if inspect.isclass(thing) and text and dataclasses.is_dataclass(thing) and text[0].startswith(f"{thing.__name__}("):
        text = []  # what `dataclass` writes where nobody did
    fields = fields_of(thing)
    lines[:] = to_rst(text) + ([*literal_python(fields), ""] if fields else [])


def literal_python(block: list[str]) -> list[str]:
    return [".. code-block:: python", "   :class: docstring", "", *(f"   {line}" if line else "" for line in block)]


def process_signature(app, what, name, thing, options, signature, returns):
    if what == "class" and fields_of(thing):
        return "", None  # the fields say it, with their comments
    return None


def skip_member(app, what, name, thing, skip, options):
    """Functions and classes that are written here; of a class, what says something about itself."""
    if what == "module":
        return skip or not (inspect.isclass(thing) or inspect.isroutine(thing))
    says = getattr(thing, "__doc__", None) or ""  # its own: inspect.getdoc would take that of nn.Module
    return skip or not (says or name == "forward") or says.startswith("Alias for field number")


def with_lists_of_parameters(app, pagename, templatename, context, doctree):
    """A signature of several lines is a list of definitions without a term, inside a term: lines of spans instead."""
    def as_spans(signature: re.Match) -> str:
        lines = re.sub(r"<dd>(.*?)</dd>", r'<span class="sig-line">\1</span>', signature[0], flags=re.DOTALL)
        return lines.replace("<dl>", '<span class="sig-lines">').replace("</dl>", "</span>")

    if '<dt class="sig' in context.get("body", ""):
        context["body"] = re.sub(r'<dt class="sig.*?</dt>', as_spans, context["body"], flags=re.DOTALL)


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("html-page-context", with_lists_of_parameters)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
