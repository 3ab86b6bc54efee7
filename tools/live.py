"""How fast the live page is in this machine's Chromium, as a table: with SIMD, and in plain JavaScript.

    make live

Each round is a browser of its own that loads the shipped model and holds the recorded conversation. Median and range over the
rounds, on a machine that does other things besides: compare the two lines with each other, and not with another day's.
"""

import statistics
import tempfile
from pathlib import Path

from pdf import opened, served

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


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        write_assets(Path(folder) / "rxt")
        (Path(folder) / "index.html").write_text("<!doctype html><title>live</title>")
        print(f"{'engine':18} {'tokens a second':>24} {'longest update, ms':>24} {'ready after arrival, ms':>26}")
        for name, script in ENGINES.items():
            rows = []
            for _ in range(ROUNDS):
                with opened(address) as tab:
                    tab.add_init_script(script)
                    tab.goto(address)
                    rows.append(tab.evaluate(MEASURE, [f"{address}rxt/", list(PREPARED)]))
            assert all(row["name"] == name for row in rows)
            speed, update, ready = (spread([row[key] for row in rows]) for key in ("speed", "update", "ready"))
            print(f"{name:18} {speed:>24} {update:>24} {ready:>26}")


if __name__ == "__main__":
    main()
