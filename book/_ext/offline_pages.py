"""Local Sphinx extension: what the theme and its extensions do not get right.

- Live code in the page (thebe) would be loaded from another host, and its constants are written twice, which is an
  error in the console. It is left out.
- Entries of a bibliography carry a role that is no longer allowed in a list.
"""


def without_thebe(app, pagename, templatename, context, doctree):
    def is_thebe(file) -> bool:
        return "thebe" in f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {})}".lower()

    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not is_thebe(file)]


def with_list_items_in_bibliographies(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app):
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("html-page-context", with_list_items_in_bibliographies, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
