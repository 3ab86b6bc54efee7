"""The site around the chapters: the library by its docstrings, the PDF, run times, messages, licences, moved pages, words."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import rxt_lite

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]
import api_pages  # noqa: E402  these are book/_ext
import pdf  # noqa: E402  and these tools: `make pdf`
import redirects  # noqa: E402
import run_times  # noqa: E402
import runtimes  # noqa: E402  `make runtimes`

BOOK = ROOT / "book"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
ROOMS = ("config", "profile", "layers", "models", "conversation", "data", "training", "experiments", "figures", "widgets")


def pages(nodes) -> list[str]:
    return [page for node in nodes for page in (node["file"], *pages(node.get("sections", [])))]


PAGES = [TOC["root"], *(page for part in TOC["parts"] for page in pages(part["chapters"]))]
SHOWN = {f"rxt_lite{name}" for file in (BOOK / "api").glob("*.md") for name in re.findall(r"automodule:: rxt_lite(\S*)", file.read_text())}


# --------------------------------------------------------------------------------------------- the library by its docstrings
def names_imported_by_chapters() -> set[tuple[str, str]]:
    """(module, name) of what the notebooks take from rxt_lite."""
    found = set()
    for path in BOOK.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code" or "rxt_lite" not in cell.source:
                continue
            source = "\n".join(line for line in cell.source.split("\n") if not line.lstrip().startswith(("%", "!")))
            try:
                tree = ast.parse(source)
            except SyntaxError:  # a body of magics alone
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rxt_lite"):
                    found |= {(node.module, alias.name) for alias in node.names}
    return found


def test_what_chapters_import_is_on_a_page():
    missing = set()
    for module, name in names_imported_by_chapters():
        thing = getattr(importlib.import_module(module), name, None)
        home = getattr(thing, "__module__", "") if inspect.isclass(thing) or inspect.isfunction(thing) else ""
        if home.startswith("rxt_lite.") and home.split(".")[1] in ROOMS and home not in SHOWN:
            missing.add(f"{home}.{name}")
    assert missing == set(), "give the module a section in book/api"


def test_pages_of_the_library_name_modules_that_exist_and_are_in_the_contents():
    for name in SHOWN:
        assert inspect.getdoc(importlib.import_module(name)), f"{name} says nothing about itself"
    assert {f"book/api/{file.stem}" for file in (BOOK / "api").glob("*.md")} <= set(PAGES)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Mix old with new.\nTwo lines of `x * y` prose_.",
         ["Mix old with new.", r"Two lines of \ ``x * y``\  prose\_.", ""]),
        ("Shapes:\n    old (S, D)    before\n    new (S, D)",
         ["Shapes:", "", *api_pages.literal(["old (S, D)    before", "new (S, D)"]), ""]),
        ("turn    the event that asks\nkind    of question",
         [*api_pages.literal(["turn    the event that asks", "kind    of question"]), ""]),
        ("    a = b\n\n    c = d\n\nEnd.", [*api_pages.literal(["a = b", "", "c = d"]), "", "End.", ""]),
        (">>> profile()\n'ci'", [*api_pages.literal([">>> profile()", "'ci'"]), ""]),
        ("- sum of p ln p", [r"\- sum of p ln p", ""]),
    ],
    ids=["prose", "indented below a colon", "columns", "equations apart", "a session", "a minus is no bullet"],
)
def test_a_docstring_becomes_prose_and_verbatim_blocks(text, shown):
    assert api_pages.to_rst(text.split("\n")) == shown


def docstrings() -> dict[str, str]:
    found = {}
    for info in pkgutil.walk_packages(rxt_lite.__path__, "rxt_lite."):
        if info.name.split(".")[1] not in ROOMS:
            continue
        module = importlib.import_module(info.name)
        members = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == info.name]
        classes = [thing for thing in members if inspect.isclass(thing)]
        inside = [part for thing in classes for part in vars(thing).values() if inspect.isfunction(part)]
        for thing in (module, *filter(inspect.isfunction, members), *classes, *inside):
            text = inspect.cleandoc(thing.__doc__ or "")
            found[f"{info.name}.{getattr(thing, '__qualname__', '')}"] = text
    return found


def test_every_docstring_is_understood_as_it_is_meant():
    """docutils has nothing to complain about, and no word is lost."""
    from docutils.core import publish_doctree

    for name, text in docstrings().items():
        settings = {"report_level": 5, "halt_level": 5, "syntax_highlight": "none"}
        tree = publish_doctree("\n".join(api_pages.to_rst(text.split("\n"))), settings_overrides=settings)
        complaints = [node.astext() for node in tree.findall(lambda node: node.tagname == "system_message")]
        assert complaints == [], name
        assert re.sub(r"[\s`]", "", tree.astext()) == re.sub(r"[\s`]", "", text), name


def test_fields_of_frozen_settings_keep_their_comments():
    from rxt_lite.config import ModelConfig
    from rxt_lite.layers.gate import ResidualGate

    fields = api_pages.fields_of(ModelConfig)
    assert fields[0] == "vocab_size: int = 256  # V" and any("S" in line and "n_slots" in line for line in fields)
    assert api_pages.fields_of(ResidualGate) == []


def test_a_signature_of_several_lines_holds_no_list():
    """A list of definitions without terms is not allowed inside a term."""
    context = {"body": '<dl><dt class="sig x">f(<dl>\n<dd><em>a</em>,</dd>\n</dl>)</dt><dd>text</dd></dl>'}
    api_pages.with_lists_of_parameters(None, "", "", context, None)
    signature = re.search(r"<dt.*?</dt>", context["body"], re.DOTALL)[0]
    assert "<dl>" not in signature and "<dd>" not in signature and '<span class="sig-line"><em>a</em>,</span>' in signature
    assert context["body"].endswith("<dd>text</dd></dl>")


# ------------------------------------------------------------------------------------------------------------------- the PDF
PAGE = """<!doctype html><html lang="en"><title>{title}</title><body><div class="bd-article"><section id="{name}"><h1>{title}</h1>
<p style="height: 1500px">{text}</p><section id="late"><h2>Late in {title}</h2>
<details><summary>Hint</summary>Open {name}.</details></section></section></div></body></html>"""


def test_the_book_is_bound_with_bookmarks_links_and_open_foldings(tmp_path, launch):
    from pypdf import PdfReader

    site = tmp_path / "site"
    (site / "book").mkdir(parents=True)
    links = ('<a href="two.html#late">to the second</a> <a href="#late">here</a> <a href="https://example.org/">out</a> '
             '<a href="../search.html">not on paper</a>')
    (site / "book" / "one.html").write_text(PAGE.format(name="one", title="First", text=links))
    (site / "book" / "two.html").write_text(PAGE.format(name="two", title="Second", text='<a href="#late">here</a>'))
    (tmp_path / "_config.yml").write_text("title: A book\nauthor: Somebody\nrepository: {url: 'https://example.org/repository'}\n")
    (tmp_path / "_toc.yml").write_text("root: book/one\nparts: [{caption: Part, chapters: [{file: book/two}]}]\n")
    command = [sys.executable, str(ROOT / "tools" / "pdf.py"), "--site", "site", "--out", "book.pdf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    book = PdfReader(tmp_path / "book.pdf")
    sheet = {mark.title: book.get_destination_page_number(mark) for mark in flat(book.outline)}
    assert list(sheet) == ["Contents", "First", "Late in First", "Part", "Second", "Late in Second"]
    assert sheet["First"] < sheet["Late in First"] < sheet["Second"] < sheet["Late in Second"]
    assert "Open one." in book.pages[sheet["Late in First"]].extract_text()
    assert str(sheet["Second"] + 1) in book.pages[1].extract_text(), "the contents name the sheet"
    words = "".join(book.pages[sheet["Late in Second"]].extract_text().split())
    assert words.endswith(f"Second{sheet['Late in Second'] + 1}"), "chapter and number at the foot"

    led, outside = [], []
    for paper in book.pages:
        for note in (reference.get_object() for reference in paper.get("/Annots", [])):
            if "/Dest" in note:
                led.append(book.get_page_number(note["/Dest"][0].get_object()))
            else:
                outside.append(note["/A"]["/URI"])
    assert led == [sheet["First"], sheet["Second"], sheet["Late in Second"], sheet["Late in First"], sheet["Late in Second"]]
    assert outside == ["https://example.org/"]


def flat(outline) -> list:
    return [mark for item in outline for mark in (flat(item) if isinstance(item, list) else [item])]


def test_the_book_on_paper_has_every_page_of_the_contents():
    parts = pdf.parts_of(TOC)
    assert [page for _, listed in parts for _, page in listed] == PAGES


# ----------------------------------------------------------------------------------------------------------------- run times
ROW = {"chapter": "experts", "profile": "ci", "seconds": 12.34, "peak_mb": 614, "gpu_mb": None, "threads": 2, "hardware": "two cores",
       "commit": "abc"}


def test_run_times_say_what_was_measured_and_what_was_not():
    rows = [ROW, {**ROW, "profile": "gpu", "seconds": 300, "gpu_mb": 2048}]
    lines = run_times.table(rows, {"experts": "Experts", "attention": "Attention"})
    assert lines[2] == "| [Experts](experts.ipynb) | 12 s, 0.6 GB | not yet | 5.0 min, 0.6 GB | 2.0 GB |"
    assert lines[3].count("not yet") == 4
    assert run_times.origins([ROW]) == ["- `ci`: two cores, commit `abc`"]


def test_run_times_cover_every_chapter_in_the_order_of_the_book():
    chapters = run_times.chapters_of(ROOT)
    assert [f"book/{name}" for name in chapters] == [page for page in PAGES if (ROOT / f"{page}.ipynb").exists()]
    assert all(title and not title.startswith("#") for title in chapters.values())


def test_a_new_measurement_takes_the_place_of_the_old_one_alone(tmp_path):
    results = tmp_path / "runtimes.jsonl"
    for row in (ROW, {**ROW, "profile": "cpu"}, {**ROW, "chapter": "attention"}, {**ROW, "seconds": 1.0}):
        runtimes.keep(row, results)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(row["chapter"], row["profile"], row["seconds"]) for row in rows] == [
        ("attention", "ci", 12.34), ("experts", "ci", 1.0), ("experts", "cpu", 12.34)]


def test_time_and_memory_are_those_of_the_executed_notebook_and_an_unfinished_one_gives_no_row(tmp_path):
    work = "import os, time; time.sleep(1); kept = b'x' * 400_000_000; assert os.environ['RXT_PROFILE'] == 'ci'"
    cells = [nbformat.v4.new_code_cell(work), nbformat.v4.new_code_cell(runtimes.MEASURE, metadata={"tags": [runtimes.MEASURED]})]
    for profile in ("ci", "cpu"):
        path = tmp_path / f"{profile}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        command = [sys.executable, "-m", "papermill", "-p", "PROFILE", profile, str(path), str(path)]
        subprocess.run(command, env={**os.environ, "RXT_PROFILE": profile}, capture_output=True)
    row = runtimes.row_of(tmp_path / "ci.ipynb")
    assert row["peak_mb"] > 400 and row["seconds"] > 1 and row["threads"] >= 1 and row["profile"] == "ci"
    with pytest.raises(ValueError, match="did not run to its end"):
        runtimes.row_of(tmp_path / "cpu.ipynb")


# ------------------------------------------------------------------------------------------------------------------ messages
def in_one_piece(source: str) -> str:
    """Source text in which a message that goes on in the next line, or the next string, stands without a seam."""
    return re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", source))


def test_messages_on_the_page_are_those_of_the_programs():
    files = [*(ROOT / "rxt_lite").rglob("*.py"), *(ROOT / "rxt_lite").rglob("*.mjs"), *(ROOT / "tools").glob("*.py"),
             ROOT / "Makefile", ROOT / "tests/conftest.py"]
    said = in_one_piece("\n".join(file.read_text(encoding="utf-8") for file in files))
    quoted = re.findall(r"^> (.+)$", (BOOK / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 10
    for message in quoted:
        for piece in filter(None, (piece.strip() for piece in re.split(r"…", message))):
            if len(piece) > 2:
                assert piece in said, f"no program says {piece!r} (of: {message})"


def test_make_commands_on_the_pages_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in (ROOT / "README.md", *BOOK.glob("*.md")):
        for code in re.findall(r"```bash\n(.*?)```|`(make [^`]+)`", file.read_text(), re.DOTALL):
            for target in re.findall(r"^\s*(?:\S+=\S+ )*make ([a-z]+)", "\n".join(code), re.MULTILINE):
                assert target in targets, f"{file.name}: make {target}"


# ------------------------------------------------------------------------------------------------------ how to cite, licences
def test_what_the_page_says_to_cite_is_what_the_file_says():
    cff, page = yaml.safe_load((ROOT / "CITATION.cff").read_text()), (BOOK / "cite.md").read_text()
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert str(cff["version"]) == version and f"version = {{{version}}}" in page
    assert f"title   = {{{cff['title']}}}" in page and cff["repository-code"] in page
    paper = cff["references"][0]
    assert paper["url"] in page and re.sub(r"\s+", " ", paper["title"]) in re.sub(r"\s+", " ", page)


@pytest.mark.parametrize("name", ["README.md", "_config.yml", "book/intro.md", "book/cite.md"])
def test_licences_and_the_patent_are_named_alike_everywhere(name):
    text = (ROOT / name).read_text()
    assert "CC BY 4.0" in text and re.search(r"\bMIT\b", text) and "P.453260" in text


def test_licences_are_the_files_that_stand_there():
    assert "MIT License" in (ROOT / "LICENSE").read_text()[:200]
    assert "Attribution 4.0 International" in (ROOT / "LICENSE-text").read_text()[:600]
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "MIT"


# -------------------------------------------------------------------------------------------------------------- moved pages
def test_moved_pages_lead_to_pages_of_today():
    for old, new in redirects.redirects(ROOT).items():
        assert new in PAGES, f"{old} leads to {new}, which is no page of the book"
        assert old not in PAGES, f"{old} is a page; it cannot lead elsewhere"


def test_an_old_address_leads_on_and_a_dead_one_stops_the_build(tmp_path):
    class App:
        srcdir, outdir = tmp_path / "source", tmp_path / "html"
        builder = type("Builder", (), {"format": "html"})

    (App.outdir / "book" / "api").mkdir(parents=True)
    (App.outdir / "book" / "api" / "index.html").write_text("here")
    (App.srcdir / "book").mkdir(parents=True)
    moved = App.srcdir / "book" / "redirects.yml"
    moved.write_text("old/library: book/api/index")
    for _ in range(2):  # also over what an earlier build has left
        redirects.write_pages(App, None)
    assert 'content="0; url=../book/api/index.html"' in (App.outdir / "old" / "library.html").read_text()
    moved.write_text("book/old: book/nowhere")
    with pytest.raises(ValueError, match="there is no such page"):
        redirects.write_pages(App, None)
    moved.write_text("book/api/index: book/api/index")
    with pytest.raises(ValueError, match="is a page of the book"):
        redirects.write_pages(App, None)


# ---------------------------------------------------------------------------------------------------------------------- words
TERMS = yaml.safe_load((BOOK / "terms.yml").read_text())
PROSE = [ROOT / "README.md", *(file for room in (BOOK, ROOT / "labs") for end in ("md", "ipynb") for file in sorted(room.rglob(f"*.{end}"))
                              if ".ipynb_checkpoints" not in file.parts)]


def prose_of(text: str) -> str:
    """Markdown without code, mathematics, tags, addresses and the texts of links to other hosts, which are titles."""
    for pattern in (r"\A---\n.*?\n---\n", r"(?m)^( *)(```+|~~~+)[\s\S]*?^\1\2", r"(`+)(?!`)[\s\S]+?(?<!`)\1(?!`)", r"\$\$[\s\S]*?\$\$",
                    r"(?<![\\$])\$[^$\n]+\$", r"<!--[\s\S]*?-->|<[^>]+>", r"\[[^\]]*\]\(https?:(?:[^()]|\([^()]*\))*\)", r"\]\([^)]*\)", r"https?://\S+"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL if pattern.startswith(r"\A") else 0)
    return text


def prose_in(file: Path) -> str:
    if file.suffix == ".md":
        return prose_of(file.read_text(encoding="utf-8"))
    return "\n\n".join(prose_of(cell.source) for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("file", PROSE, ids=lambda file: str(file.relative_to(ROOT)))
def test_one_word_for_one_thing(file):
    text = prose_in(file)
    hits = [f"{text[max(0, hit.start() - 30) : hit.end() + 20]!r}: say {term['say']}"
            for term in TERMS for hit in re.finditer(term["never"], text, re.IGNORECASE)]
    assert hits == []


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term["say"])
def test_the_list_does_not_forbid_what_it_recommends(term):
    assert not re.search(term["never"], term["say"], re.IGNORECASE)


def test_prose_is_what_is_left_without_code_mathematics_and_titles():
    text = ("Use `color` and $behavior$ at\n```python\ngray\n```\n[Datasets](https://x.org/a(1)) but [datasets](page.md) "
            "<a href='license'>is</a>")
    assert prose_of(text).split() == ["Use", "and", "at", "but", "[datasets", "is"]


def test_quotes_are_set_as_typographic_ones():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["sphinx"]["config"].get("smartquotes", True) is True
    assert config["sphinx"]["config"]["language"] == "en"


# ------------------------------------------------------------------------------------------------------- the moving picture
def test_the_picture_of_the_cycle_moves_only_where_it_may_and_can_be_stopped(browser):
    picture, script = (BOOK / "_static/event-cycle.svg").read_text(), (BOOK / "_static/book.js").read_text()
    page = f'<!doctype html><html lang="en"><head><script>{script}</script></head><body>{picture}</body></html>'
    moving = "document.getAnimations().filter(motion => motion.playState === 'running').length"
    for wish, moves in (("no-preference", True), ("reduce", False)):
        context = browser.new_context(reduced_motion=wish)
        tab = context.new_page()
        tab.set_content(page)
        assert bool(tab.evaluate(moving)) is moves
        assert tab.locator("button").is_visible() is moves
        if moves:
            tab.click("button")
            assert tab.evaluate(moving) == 0
            assert tab.locator("button").inner_text() == "Let the picture move"
        whole = "[...document.querySelectorAll('svg rect, svg path, svg text')].every(shape => getComputedStyle(shape).opacity === '1')"
        assert tab.evaluate(whole), "nothing of the picture is hidden at any time"
        context.close()


def test_the_picture_is_still_where_no_script_runs():
    """README shows it as an image: its motions begin with a class that only the page adds."""
    style = re.search(r"<style>(.*?)</style>", (BOOK / "_static/event-cycle.svg").read_text(), re.DOTALL)[1]
    rules = [line.strip() for line in style.splitlines() if "animation:" in line]
    assert rules and all(rule.startswith(".rxt-moving ") for rule in rules)
    assert style.index("prefers-reduced-motion: no-preference") < style.index("animation:")
