"""Widgets as HTML: what stands on a page that has no kernel, and is all there is where no script runs.

    <div data-rxt="CostMeter"><script type="application/json">{traits}</script>a table</div>

`mountAll` of js/pages.mjs puts the widget in the place of the table; the build of the book adds the module to every
page on which there is one (book/_ext/live_model.py).
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rxt_lite.data.tokenizer import decode, load_tokenizer
from rxt_lite.models.checkpoint import load
from rxt_lite.widgets.bundle import bundle, style
from rxt_lite.widgets.export import check_profile, export_web, reference, rounded
from rxt_lite.widgets.packing import packed_trace

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "book" / "rxt"  # the model that answers on pages
MODULE, ENGINE, STYLE = "rxt-widgets.mjs", "rxt-engine.mjs", "rxt-widgets.css"


def mount(kind: str, traits: dict, fallback: str) -> str:
    """The HTML of one widget; `fallback` is shown until the module has run, and where none can."""
    inside = json.dumps(traits, ensure_ascii=False).replace("</", "<\\/")  # no value may end the script
    return f'<div class="rxt" data-rxt="{kind}"><script type="application/json">{inside}</script>{fallback}</div>'


def table(caption: str, rows: Sequence[dict]) -> str:
    """Rows as an HTML table; numbers to three digits."""
    def cell(value) -> str:
        return escape(f"{value:.3g}" if isinstance(value, float) else str(value))

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return (f'<div class="rxt-scroll" tabindex="0" role="group" aria-label="{escape(caption)}"><table class="rxt-table">'
            f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def live_html(checkpoint: Path | str = SHIPPED) -> str:
    """The live page of a saved model: a conversation that was recorded when the book was built, to be replaced by a live one."""
    model, tokenizer = load(checkpoint), load_tokenizer(Path(checkpoint) / "tokenizer.json")
    check_profile(model)
    said = reference(rounded(model), tokenizer)
    turns = [{"query": query, "answer": decode(tokenizer, answer)} for query, answer in zip(said.queries, said.answers)]
    megabytes = 2 * sum(p.numel() for p in model.parameters()) / 1e6
    traits = {"trace": packed_trace(said.trace, tokenizer), "turns": turns, "size": f"{megabytes:.1f} MB"}
    lines = "".join(f'<p class="rxt-said rxt-you"><b>you: </b>{escape(turn["query"])}</p>'
                    f'<p class="rxt-said rxt-model"><b>model: </b>{escape(turn["answer"])}</p>' for turn in turns)
    why = ("This conversation was recorded when the book was built. The model itself can answer here when the page is read over "
           "http with scripts allowed; a page opened as a file cannot load it. <code>make serve</code> serves the book.")
    return mount("LiveRxT", traits, f'<p class="rxt-note">{why}</p><div class="rxt-prepared">{lines}</div>')


def write_assets(out: Path, checkpoint: Path | str = SHIPPED) -> None:
    """Everything that pages with widgets load, into the folder `out`: module, style, and the exported model beside them."""
    export_web(checkpoint, out)
    for name, text in ((MODULE, bundle("pages")), (ENGINE, bundle("engine")), (STYLE, style())):
        (out / name).write_text(text, encoding="utf-8")
