"""How fast the live page is in this machine's Chromium, as a table: with SIMD, and in plain JavaScript.

    make live

Each round is a page of its own that loads the shipped model and holds the recorded conversation. Median and range over the
rounds, on a machine that does other things besides: compare the two lines with each other, and not with another day's.
"""

import os
import shutil
import statistics
import tempfile
from pathlib import Path

from pdf import BROWSERS, PATIENCE, served
from playwright.sync_api import sync_playwright

from rxt_lite.widgets.export import PREPARED
from rxt_lite.widgets.page import write_assets

ROUNDS = 5
ENGINES = {"WebAssembly SIMD": "", "JavaScript": "WebAssembly.instantiate = async () => { throw new Error('no SIMD') };"}
MEASURE = """async ([base, queries]) => {
    const [{ Conversation }, { LocalEngine }] = await Promise.all(["widgets", "engine"].map((name) => import(`${base}rxt-${name}.mjs`)));
    let arrived = 0;
    const loaded = await LocalEngine.fetch(base, (bytes, all) => { if (bytes === all) arrived = performance.now(); });
    const ready = performance.now() - arrived, talk = new Conversation(loaded);
    for (const text of queries) await talk.say(text);
    const said = talk.turns.slice(1), sum = (numbers) => numbers.reduce((a, b) => a + b, 0); // the first turn warms up
    return { name: loaded.name, ready, update: Math.max(...said.map(({ ms }) => ms.update)),
             speed: 1e3 * sum(said.map(({ ids, from }) => ids.length - from)) / sum(said.map(({ ms }) => ms.answer)) };
}"""


def main() -> None:
    found = os.environ.get("RXT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise SystemExit("no Chromium on the PATH; install it (Debian: apt-get install chromium) or name one with RXT_BROWSER")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_assets(Path(folder) / "rxt")
        (Path(folder) / "index.html").write_text("<!doctype html><title>live</title>")
        browser = playwright.chromium.launch(executable_path=found, timeout=PATIENCE)
        print(f"{'engine':18} {'tokens a second':>24} {'longest update, ms':>24} {'ready after arrival, ms':>26}")
        with served(Path(folder)) as address:
            for name, script in ENGINES.items():
                rows = []
                for _ in range(ROUNDS):
                    page = browser.new_page()
                    page.add_init_script(script)
                    page.goto(address)
                    rows.append(page.evaluate(MEASURE, [f"{address}rxt/", list(PREPARED)]))
                    page.close()
                assert all(row["name"] == name for row in rows)
                cells = []
                for key in ("speed", "update", "ready"):
                    values = [row[key] for row in rows]
                    cells.append(f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})")
                print(f"{name:18} {cells[0]:>24} {cells[1]:>24} {cells[2]:>26}")
        browser.close()


if __name__ == "__main__":
    main()
