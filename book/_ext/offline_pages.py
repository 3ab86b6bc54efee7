"""Local Sphinx extension: leave out what the theme brings for live code in the page (thebe).

It would be loaded from another host, and its constants are written twice, which is an error in the console.
"""


def without_thebe(app, pagename, templatename, context, doctree):
    def is_thebe(file) -> bool:
        return "thebe" in f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {})}".lower()

    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not is_thebe(file)]


def setup(app):
    app.connect("html-page-context", without_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
