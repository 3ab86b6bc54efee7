"""The site, built with the profile ci and looked at in a real browser with every other host out of reach.

The browser is that of conftest.py.
"""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from pdf import served  # noqa: E402  from tools/pdf.py

BUILD = ROOT / "_build" / "test"
PATIENCE = 120_000  # ms: a busy machine is slow, not wrong


def pages_of_the_toc() -> list[str]:
    def files(node):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from [value] if key in ("file", "root") else files(value)
        elif isinstance(node, list):
            for item in node:
                yield from files(item)

    return [f"{file}.html" for file in files(yaml.safe_load((ROOT / "_toc.yml").read_text()))]


PAGES = [*pages_of_the_toc(), "search.html", "genindex.html"]
CHAPTERS = [page for page in PAGES if (ROOT / page).with_suffix(".ipynb").exists()]


# ------------------------------------------------------------------------------------------------ build, serve, visit
@pytest.fixture(scope="module")
def site() -> Path:
    """The built site. It has a folder of its own, so that the reader's _build/html stays as it is."""
    command = [sys.executable, "tools/build.py", "--into", str(BUILD)]
    built = subprocess.run(command, cwd=ROOT, env={**os.environ, "RXT_PROFILE": "ci"}, capture_output=True, text=True)
    if built.returncode:
        pytest.fail(f"the book does not build:\n{built.stdout[-3000:]}\n{built.stderr[-6000:]}", pytrace=False)
    return BUILD / "_build" / "html"


@pytest.fixture(scope="module")
def address(site) -> str:
    with served(site) as where:
        yield where


@dataclass
class Visit:
    """What happened when a page was opened, all its foldings unfolded."""

    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    theme: str = ""
    headings: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    moved: int = 0
    formulas: dict = field(default_factory=dict)
    axe: list[str] = field(default_factory=list)


MODES = {
    "light": {"color_scheme": "light", "viewport": {"width": 1360, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1360, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 375, "height": 800}},
}
# What axe looks for: colours change with the light alone, the rest with the width alone. The colours of code are the same on all pages and
# take the longest, so they are looked at on one, and code is plain text on the others.
COLOURS, THE_REST = {"runOnly": ["color-contrast"]}, {"rules": {"color-contrast": {"enabled": False}}}
LOOKED_FOR = {"light": {}, "dark": COLOURS, "phone": THE_REST}
MUCH_CODE = "book/attention.html"
PLAIN_CODE = "document.querySelectorAll('.highlight pre').forEach(code => { code.textContent = code.textContent; })"
VISIBLE_H1 = "[...document.querySelectorAll('h1')].filter(h => h.checkVisibility()).map(h => h.innerText)"
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.tagName + '.' + e.className).slice(0, 5)"""
SETTLED = """async () => {
    for (let calm = 0; calm < 3; calm = document.getAnimations().some(a => a.playState === 'running') ? 0 : calm + 1)
        await new Promise(frame => requestAnimationFrame(frame));
}"""
COUNT_MOVES = "window.moved = 0; addEventListener('transitionrun', () => { moved += 1; }, true);"
FORMULAS = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    return {written: document.querySelectorAll('.math').length, set: document.querySelectorAll('.math mjx-container').length,
            broken: [...document.querySelectorAll('mjx-merror')].map(e => e.getAttribute('data-mjx-error'))};
}"""


@pytest.fixture(scope="module")
def visit(browser, address):
    from axe_playwright_python.sync_playwright import Axe

    @functools.cache
    def open_page(name: str, mode: str) -> Visit:
        seen = Visit()
        context = browser.new_context(**MODES[mode], reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        page = context.new_page()

        def at_the_door(route):
            url = route.request.url
            if url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                seen.outside.append(url)
                route.abort()

        page.route("**/*", at_the_door)
        def on_console(said):
            if said.type in ("error", "warning"):
                seen.complaints.append(said.text)

        def on_response(reply):
            if reply.status >= 400:
                seen.missing.append(reply.url)

        page.on("console", on_console)
        page.on("response", on_response)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.add_init_script(COUNT_MOVES)
        page.goto(address + name, wait_until="networkidle")
        seen.formulas = page.evaluate(FORMULAS)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.evaluate(SETTLED)  # colours have their transitions; axe must not look in the middle of one
        seen.theme = page.evaluate("document.documentElement.dataset.theme")
        seen.headings = page.evaluate(VISIBLE_H1)
        seen.overflow = page.evaluate(TOO_WIDE)
        seen.moved = page.evaluate("moved")
        page.remove_listener("console", on_console)  # axe fetches style sheets by itself, some from a wrong address
        page.remove_listener("response", on_response)
        options = {"resultTypes": ["violations"], **LOOKED_FOR[mode]}
        if name != MUCH_CODE:
            page.evaluate(PLAIN_CODE)
        for violation in Axe().run(page, options=options).response["violations"]:
            places = [" ".join(map(str, node["target"])) for node in violation["nodes"]]
            seen.axe.append(f"{violation['id']}: {violation['help']} at {places[:5]}: {violation['nodes'][0]['failureSummary']}")
        context.close()
        return seen

    return open_page


# -------------------------------------------------------------------------------------------------- in the browser
@pytest.mark.parametrize("page", PAGES)
def test_page_asks_no_other_host(visit, page):
    assert visit(page, "light").outside == []


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_everything_it_names_with_a_clean_console(visit, page):
    seen = visit(page, "light")
    assert seen.missing == []
    assert seen.complaints == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page", PAGES)
def test_page_is_accessible(visit, page, mode):
    seen = visit(page, mode)
    assert seen.theme == ("dark" if "dark" in mode else "light")
    assert not seen.axe, "\n".join(seen.axe)


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(visit, page):
    assert visit(page, "phone").overflow == []


@pytest.mark.parametrize("page", PAGES)
def test_page_keeps_still_for_those_who_ask(visit, page):
    """Not even for an instant: transitions of 0.01 ms in every element once made a page of the reference take 16 s."""
    assert visit(page, "dark").moved == 0


@pytest.mark.parametrize("page", PAGES)
def test_page_has_one_heading_of_the_first_level(visit, page):
    assert len(visit(page, "light").headings) == 1


@pytest.mark.parametrize("page", pages_of_the_toc())
def test_formulas_are_set(visit, page):
    formulas = visit(page, "light").formulas
    assert formulas["broken"] == []
    assert formulas["set"] == formulas["written"]


def test_search_finds_a_page_offline(browser, address):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(address) else route.abort())
    page.goto(address + "search.html?q=transcript", wait_until="networkidle")
    page.wait_for_selector("#search-results li a")
    assert any("transcript-or-state" in link.get_attribute("href") for link in page.query_selector_all("#search-results a"))
    page.close()


def test_first_stop_of_the_tab_key_skips_to_the_text(browser, address):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address + "book/intro.html", wait_until="networkidle")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"
    page.close()


# ------------------------------------------------------------------------------------------- in the text of the pages
@pytest.fixture(scope="module")
def soups(site) -> dict[str, BeautifulSoup]:
    files = (file for file in site.rglob("*.html") if "_static" not in file.relative_to(site).parts)
    return {file.relative_to(site).as_posix(): BeautifulSoup(file.read_text(), "html.parser") for file in files}


def test_every_page_of_the_toc_is_built(soups):
    assert set(PAGES) <= set(soups)


def test_pages_say_their_language(soups):
    assert {name for name in PAGES if soups[name].html.get("lang") != "en"} == set()


def test_every_picture_says_what_it_shows(soups):
    silent = []
    for name in PAGES:
        for image in soups[name].select("article img, .bd-article img"):
            alt = image.get("alt", "")
            if len(alt) < 20 or "/" in alt or alt.startswith("<"):
                silent.append(f"{name}: {image.get('src')} alt={alt!r}")
        silent += [f"{name}: {image.get('src')} has no alt" for image in soups[name].find_all("img") if image.get("alt") is None]
    assert silent == [], "give the cell metadata {'mystnb': {'image': {'alt': ...}}}"


def test_internal_links_and_anchors_lead_somewhere(soups, site):
    anchors = {name: {tag["id"] for tag in soup.find_all(id=True)} | {"", "top"} for name, soup in soups.items()}
    dead = []
    for name, soup in soups.items():
        for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href"), ("source", "src")):
            for place in soup.find_all(tag, **{attribute: True}):
                target, anchor = urldefrag(urljoin(f"http://here/{name}", place[attribute]))
                url = urlparse(target)
                if url.netloc != "here":
                    continue
                path = unquote(url.path).lstrip("/") or "index.html"
                known = anchors.get(path)
                if not (site / path).is_file() or (known is not None and unquote(anchor) not in known):
                    dead.append(f"{name}: {place[attribute]}")
    assert dead == []


def test_pages_name_no_file_on_another_host(soups):
    outside = []
    for name, soup in soups.items():
        for place in soup.select("[src], link[href][rel=stylesheet], link[href][rel=preload]"):
            url = place.get("src") or place["href"]
            if urlparse(url).netloc:
                outside.append(f"{name}: {url}")
    assert outside == []


def test_chapters_offer_colab_for_their_own_notebook(soups):
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    for name in CHAPTERS:
        notebook = f"blob/{repository['branch']}/{Path(name).with_suffix('.ipynb')}"
        wanted = f"https://colab.research.google.com/github{urlparse(repository['url']).path}/{notebook}"
        links = [a["href"] for a in soups[name].find_all("a", href=True) if "colab.research" in a["href"]]
        assert links and set(links) == {wanted}
