"""Local Sphinx extension: the widgets of rxt_lite on pages without a kernel.

- `rxt-live` is a directive: the live page's model, with a conversation that is recorded now.
- The files that widgets load are written into _static/rxt; nothing of them is fetched before a reader asks for the model.
- Pages on which there is a widget load the module and its style sheet; other pages do not know of them.
"""

import hashlib
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from rxt_lite.widgets.page import MODULE, STYLE, live_html, write_assets

recorded = cache(live_html)


class LiveModel(Directive):
    def run(self):
        return [nodes.raw("", recorded(), format="html")]


def write_files(app):
    if app.builder.format == "html":
        write_assets(assets(app))


def assets(app) -> Path:
    return Path(app.outdir) / "_static" / "rxt"


def without_kernel_state(app, pagename, templatename, context, doctree):
    """The state of widgets, their whole code in it, is for a kernel that a page has not."""
    context["script_files"] = [file for file in context.get("script_files", [])
                               if getattr(file, "attributes", {}).get("type") != "application/vnd.jupyter.widget-state+json"]


def with_module(app, pagename, templatename, context, doctree):
    if "data-rxt=" not in context.get("body", ""):
        return

    def address(name: str) -> str:
        content = hashlib.sha256((assets(app) / name).read_bytes()).hexdigest()[:8]
        return f"{context['pathto'](f'_static/rxt/{name}', resource=True)}?v={content}"

    style = f'<link rel="stylesheet" href="{address(STYLE)}">'
    script = f'<script type="module">import {{ mountAll }} from "{address(MODULE)}"; mountAll();</script>'
    context["metatags"] = context.get("metatags", "") + style
    context["body"] += script


def setup(app):
    app.add_directive("rxt-live", LiveModel)
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", with_module, priority=900)
    app.connect("html-page-context", without_kernel_state, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
