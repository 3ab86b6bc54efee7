"""Local Sphinx extension: old addresses lead to the pages of today. book/redirects.yml is the one list of them."""

import os
from html import escape
from pathlib import Path

import yaml

MOVED = "This page has moved"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{moved}</title>
<meta name="robots" content="noindex">
<meta http-equiv="refresh" content="0; url={target}">
</head>
<body><main><h1>{moved}</h1><p>It is now at <a href="{target}">{target}</a>.</p></main></body>
</html>
"""


def redirects(root: Path) -> dict[str, str]:
    return yaml.safe_load((root / "book" / "redirects.yml").read_text(encoding="utf-8")) or {}


def write_pages(app, error):
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for old, new in redirects(Path(app.srcdir)).items():
        if not (out / f"{new}.html").exists():
            raise ValueError(f"book/redirects.yml leads from {old} to {new}, but there is no such page; name the page of today")
        page = out / f"{old}.html"
        if page.exists() and MOVED not in page.read_text(encoding="utf-8"):  # not one that an earlier build wrote
            raise ValueError(f"book/redirects.yml leads away from {old}, which is a page of the book; take the entry out")
        page.parent.mkdir(parents=True, exist_ok=True)
        target = escape(os.path.relpath(out / f"{new}.html", page.parent))
        page.write_text(PAGE.format(moved=MOVED, target=target), encoding="utf-8")


def setup(app):
    app.connect("build-finished", write_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
