"""The browser of the tests.

Chromium is found on the PATH (or named by RXT_BROWSER). Without it the browser tests are skipped with one reason;
with RXT_REQUIRE_BROWSER=1, as in .ci/run, they fail instead.
"""

import itertools
import json
import os
import re
import shutil
import subprocess

import pytest

LONG = ("test_pages.py", "test_results.py", "test_ci_can_fail.py", "test_grading.py")
PATIENCE = 120_000  # ms: a busy machine is slow, not wrong
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")


def pytest_collection_modifyitems(items):
    """The files that take minutes come first: begun last, one of them would keep a single core busy and the other waiting."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="module")  # no longer: while Playwright lives, its event loop runs in this thread, and asyncio.run refuses to start
def launch():
    """A function that starts Chromium, with the arguments it is given; all are closed at the end."""
    found = os.environ.get("RXT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        reason = "no Chromium on the PATH; install it (Debian: apt-get install chromium) or name one with RXT_BROWSER"
        if os.environ.get("RXT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = []

        def start(*arguments: str):
            started.append(playwright.chromium.launch(executable_path=found, timeout=PATIENCE, args=list(arguments)))
            return started[-1]

        yield start
        for browser in started:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch):
    return launch()


@pytest.fixture
def firefox(tmp_path):
    """A function that opens an address in Firefox and returns what an expression is worth there; skipped without Firefox.

    It speaks WebDriver BiDi itself: the browser of a distribution is not one that Playwright can drive.
    """
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if not found:
        pytest.skip("no Firefox on the PATH (Debian: apt-get install firefox-esr); Chromium shows the same page")
    import websocket

    command = [found, "--headless", "--no-remote", "--profile", str(tmp_path), "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "HOME": str(tmp_path)})
    where = next(match[0] for line in process.stderr if (match := re.search(r"ws://\S+", line)))
    line, numbers = websocket.create_connection(f"{where}/session", timeout=PATIENCE / 1000, suppress_origin=True), itertools.count()

    def ask(method: str, **parameters) -> dict:
        number = next(numbers)
        line.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(line.recv())).get("id") != number:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def evaluate(address: str, expression: str):
        ask("session.new", capabilities={})
        tab = ask("browsingContext.getTree")["contexts"][0]["context"]
        ask("browsingContext.navigate", context=tab, url=address, wait="complete")
        said = ask("script.evaluate", expression=f"({expression}).then(JSON.stringify)", target={"context": tab}, awaitPromise=True)
        assert said["type"] == "success", said
        return json.loads(said["result"]["value"])

    yield evaluate
    line.close()
    process.terminate()
    process.wait()
