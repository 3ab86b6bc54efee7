"""The built site as one PDF: _build/html -> _build/book.pdf, printed by headless Chromium, a page of the site after the other.

    make pdf                                    after `make book`, which it calls
    python tools/pdf.py --site FOLDER --out FILE --only book/intro book/log

What is folded on a page is open on paper, except for the set-up code of notebooks, of which the name is printed. Widgets are
pictures of their first state. Links within the book lead to pages of the PDF; the contents stand at its beginning, and, down
to the headings of each chapter, in its bookmarks. Pages ask no other host.
"""

import argparse
import functools
import http.server
import io
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, FloatObject, NameObject

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PATIENCE = 300_000  # ms
PAPER = {"format": "A4", "print_background": True, "margin": {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}}

UNFOLD = "document.querySelectorAll('.bd-article details:not(.hide)').forEach(folded => { folded.open = true; })"
SETTLED = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    for (const image of document.images) { image.loading = 'eager'; await image.decode().catch(() => {}); }
    await document.fonts.ready;
}"""
HEADINGS = """() => [...document.querySelectorAll('.bd-article :is(h1, h2, h3, h4, h5, h6)')].filter(heading => heading.checkVisibility())
    .map(heading => [heading.id, heading.closest('section')?.id ?? ''])"""
FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
    body {{ font: 11pt/1.5 system-ui, sans-serif; color: #1d2733 }}
    h1 {{ font-size: 34pt; margin: 70mm 0 6mm }}
    h2 {{ font-size: 20pt; break-before: page }}
    h3 {{ font-size: 11pt; margin: 5mm 0 1mm; break-after: avoid }}
    a {{ color: inherit; text-decoration: none }}
    p.line {{ display: flex; margin: 0 }}
    p.line::before {{ content: ""; order: 2; flex: 1; border-bottom: 1px dotted #4d5b68; margin: 0 2mm 1.4mm }}
    p.line span {{ order: 3 }}
    p.below {{ padding-left: 6mm }}
    small {{ display: block; margin-top: 90mm; font-size: 9pt }}
</style>
<h1>{title}</h1>
<p>A book on the Reactive Transformer, with a small PyTorch library, that you read by running it.</p>
<p>{author}</p>
<small>An independent implementation, written from the published mathematics. Not affiliated with Reactive AI. The authors’ own
framework is under a non-commercial licence, and the architecture is patent-pending (P.453260). Text: CC BY 4.0. Code: MIT.
The notebooks, and this book as pages that can be touched: {repository}</small>
<h2>Contents</h2>{lines}</html>"""
NUMBERS = """<!doctype html><html lang="en"><meta charset="utf-8"><title>page numbers</title><style>
    @page {{ size: A4; margin: 0 }}
    body {{ margin: 0 }}
    div {{ height: 296.9mm; break-after: page; position: relative; font: 9pt system-ui, sans-serif; color: #4d5b68 }}
    p {{ position: absolute; bottom: 9mm; left: 18mm; right: 18mm; margin: 0; display: flex; justify-content: space-between }}
</style>{pages}</html>"""


# ------------------------------------------------------------------------------------------------- what is in the book
def parts_of(toc: dict) -> list[tuple[str, list[tuple[int, str]]]]:
    """[(caption, [(depth, page), ...]), ...] in the order of the book."""
    def pages(nodes: list[dict], depth: int) -> Iterator[tuple[int, str]]:
        for node in nodes:
            yield depth, node["file"]
            yield from pages(node.get("sections", []), depth + 1)

    return [("", [(0, toc["root"])]), *((part["caption"], list(pages(part["chapters"], 0))) for part in toc["parts"])]


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site on an address of this machine: modules do not load from a file."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def opened(address: str):
    """A browser tab that asks no other host than `address`."""
    found = os.environ.get("RXT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        sys.exit("no Chromium on the PATH; install it (Debian: apt-get install chromium) or name one with RXT_BROWSER")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, timeout=PATIENCE)
        tab = browser.new_page(color_scheme="light", reduced_motion="reduce", viewport={"width": 1000, "height": 1400})
        tab.set_default_timeout(PATIENCE)
        tab.route("**/*", lambda route: route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort())
        yield tab
        browser.close()


# ------------------------------------------------------------------------------------------------- a page becomes sheets
class Chapter:
    """A page of the site as sheets, and where on them its headings are."""

    def __init__(self, tab, address: str, page: str):
        tab.goto(f"{address}{page}.html", wait_until="networkidle")
        tab.evaluate(UNFOLD)
        tab.evaluate(SETTLED)
        tab.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
        self.page, self.title = page, tab.evaluate("document.querySelector('.bd-article h1').firstChild.textContent.trim()")
        ids = tab.evaluate(HEADINGS)
        self.reader = PdfReader(io.BytesIO(tab.pdf(outline=True, tagged=True, **PAPER)))
        tab.emulate_media(media="screen", color_scheme="light", reduced_motion="reduce")
        marks = [mark for mark, _ in flat(self.reader.outline)]
        self.anchors = {}  # id -> (sheet of this chapter, height on it)
        if len(marks) == len(ids):
            places = [(self.reader.get_destination_page_number(mark), float(mark.top or 0)) for mark in marks]
            self.anchors = {name: place for names, place in zip(ids, places) for name in names if name}
        self.named = {name: (self.reader.get_destination_page_number(place), float(place.top or 0))
                      for name, place in self.reader.named_destinations.items()}


def flat(outline: list, depth: int = 0) -> Iterator[tuple]:
    """(bookmark, depth) of all bookmarks, in order."""
    for mark in outline:
        if isinstance(mark, list):
            yield from flat(mark, depth + 1)
        else:
            yield mark, depth


def front(tab, address: str, about: dict, parts: list, chapters: dict[str, Chapter], starts: dict[str, int]) -> PdfReader:
    """Title and contents."""
    lines = []
    for caption, pages in parts:
        pages = [(depth, page) for depth, page in pages if page in chapters]
        lines += [f"<h3>{escape(caption)}</h3>"] if caption and pages else []
        lines += [f'<p class="line{" below" if depth else ""}"><a href="{address}{page}.html">{escape(chapters[page].title)}</a>'
                  f"<span>{starts.get(page, 0) + 1}</span></p>" for depth, page in pages]
    names = {"title": escape(about["title"]), "author": escape(about["author"]), "repository": about["repository"]["url"]}
    tab.set_content(FRONT.format(lines="".join(lines), **names))
    return PdfReader(io.BytesIO(tab.pdf(tagged=True, **PAPER)))


# ------------------------------------------------------------------------------------------------- sheets become a book
def bind(tab, address: str, about: dict, parts: list, chapters: dict[str, Chapter]) -> PdfWriter:
    numbers = {}
    for _ in range(2):  # once to see how long the contents are, once with the right numbers
        opening = front(tab, address, about, parts, chapters, numbers)
        sheet = len(opening.pages)
        for page, chapter in chapters.items():
            numbers[page], sheet = sheet, sheet + len(chapter.reader.pages)

    book = PdfWriter()
    book.append(opening, outline_item="Contents", import_outline=False)
    captions = {page: caption for caption, pages in parts for _, page in pages}
    heads: dict[str, object] = {}
    for page, chapter in chapters.items():
        book.append(chapter.reader, import_outline=False)
        above = None
        if captions[page]:
            above = heads[captions[page]] = heads.get(captions[page]) or book.add_outline_item(
                title=captions[page], page_number=numbers[page])
        below = [book.add_outline_item(title=chapter.title, page_number=numbers[page], parent=above)]
        for mark, depth in list(flat(chapter.reader.outline))[1:]:
            del below[max(depth, 1):]
            sheet = numbers[page] + chapter.reader.get_destination_page_number(mark)
            below.append(book.add_outline_item(title=mark.title, page_number=sheet, parent=below[-1]))
    lead_links_inside(book, address, chapters, numbers)
    stamp(tab, book, len(opening.pages), [(numbers[page], chapter.title) for page, chapter in chapters.items()])
    book.add_metadata({"/Title": about["title"], "/Author": about["author"]})
    book.compress_identical_objects()
    return book


def lead_links_inside(book: PdfWriter, address: str, chapters: dict[str, Chapter], numbers: dict[str, int]) -> None:
    """Links to the site become links to sheets; those to what is not on paper are dropped."""
    home = {sheet: page for page, start in numbers.items() for sheet in range(start, start + len(chapters[page].reader.pages))}
    for sheet, paper in enumerate(book.pages):
        kept = ArrayObject()
        for reference in paper.get("/Annots", []):
            note = reference.get_object()
            place = target(note, home.get(sheet), address, chapters, numbers)
            if place == "nowhere":
                continue
            if place:
                note.pop(NameObject("/A"), None)
                corner = FloatObject(0), FloatObject(place[1]), FloatObject(0)
                note[NameObject("/Dest")] = ArrayObject([book.pages[place[0]].indirect_reference, NameObject("/XYZ"), *corner])
            kept.append(reference)
        if "/Annots" in paper:
            paper[NameObject("/Annots")] = kept


def target(note, page: str | None, address: str, chapters: dict[str, Chapter], numbers: dict[str, int]):
    """(sheet, height) that a link leads to, "nowhere", or None: leave it as it is."""
    if page and isinstance(note.get("/Dest"), str):  # within the page; two pages may use the same name
        sheet, height = chapters[page].named.get(note["/Dest"], (0, 842.0))
        return numbers[page] + sheet, height
    url = str(note.get("/A", {}).get("/URI", ""))
    if not url.startswith(address):
        return None
    path, anchor = urldefrag(url[len(address):])
    other = chapters.get(unquote(path).removesuffix(".html"))
    if not other:
        return "nowhere"
    sheet, height = other.anchors.get(unquote(anchor), (0, 842.0))
    return numbers[other.page] + sheet, height


def stamp(tab, book: PdfWriter, first: int, starts: list[tuple[int, str]]) -> None:
    """The number of every sheet, and the chapter it belongs to, at its foot."""
    titles = [max((start, title) for start, title in starts if start <= sheet)[1] for sheet in range(first, len(book.pages))]
    feet = [f"<div><p><span>{escape(title)}</span><span>{first + place}</span></p></div>" for place, title in enumerate(titles, start=1)]
    tab.set_content(NUMBERS.format(pages="".join(feet)))
    sheets = PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True)))
    for place in range(len(titles)):
        book.pages[first + place].merge_page(sheets.pages[place])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=Path("_build/html"))
    parser.add_argument("--out", type=Path, default=Path("_build/book.pdf"))
    parser.add_argument("--only", nargs="+", help="pages, such as book/intro")
    asked = parser.parse_args()
    about, parts = yaml.safe_load(Path("_config.yml").read_text()), parts_of(yaml.safe_load(Path("_toc.yml").read_text()))
    wanted = [page for _, pages in parts for _, page in pages if not asked.only or page in asked.only]
    missing = [page for page in wanted if not (asked.site / f"{page}.html").exists()]
    if missing:
        sys.exit(f"{asked.site} has no page {missing[0]}; build the book first: make book")
    with served(asked.site) as address, opened(address) as tab:
        chapters = {}
        for page in wanted:
            chapters[page] = Chapter(tab, address, page)
            print(f"{page}: {len(chapters[page].reader.pages)} sheets", flush=True)
        book = bind(tab, address, about, parts, chapters)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    book.write(asked.out)
    print(f"\n{len(book.pages)} sheets, {asked.out.stat().st_size / 1e6:.1f} MB: {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
