"""The browser of the tests.

Chromium is found on the PATH (or named by RXT_BROWSER). Without it the browser tests are skipped with one reason;
with RXT_REQUIRE_BROWSER=1, as in .ci/run, they fail instead.
"""

import os
import shutil

import pytest

PATIENCE = 120_000  # ms: a busy machine is slow, not wrong
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def browser(launch):
    return launch()
