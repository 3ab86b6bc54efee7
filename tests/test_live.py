"""The live page in a real browser: it computes PyTorch's answers and memories, and does what it says.

The page is the directive's HTML on a page of its own, so that these tests need no build of the book; the page in the built
book is visited by test_pages.py.
"""

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import load_tokenizer
from rxt_lite.experiments.cost import cost_rows
from rxt_lite.experiments.recall import run_freely
from rxt_lite.experiments.slots import trace_rows
from rxt_lite.models import memory_file
from rxt_lite.models.checkpoint import load
from rxt_lite.widgets import CostMeter, GateExplorer, MemoryMap, SlotSurvival
from rxt_lite.widgets.bundle import bundle
from rxt_lite.widgets.export import ANSWER, PREPARED, reference, rounded
from rxt_lite.widgets.page import ENGINE, MODULE, SHIPPED, STYLE, live_html, write_assets

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from pdf import served  # noqa: E402  from tools/pdf.py

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="rxt/{style}">
<style>:root {{ color-scheme: light dark }} body {{ font-family: sans-serif; margin: 1rem;
background: Canvas; color: CanvasText }}</style></head>
<body><main><h1>{title}</h1>{body}</main>
<script type="module">import {{ mountAll }} from "./rxt/{module}"; mountAll();</script></body></html>"""

# Flags of the browser, a script before all others, and what the page then says it computes with.
ENGINES = {
    "SIMD": ((), "", "WebAssembly SIMD"),
    "no SIMD": ((), "WebAssembly.instantiate = async () => { throw new Error('no SIMD') };", "JavaScript"),
    "no WebAssembly": (("--js-flags=--jitless",), "", "JavaScript"),
}
MODES = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 375, "height": 800}},
}


@pytest.fixture(scope="session")
def model():
    return rounded(load(SHIPPED))


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(SHIPPED / "tokenizer.json")


@pytest.fixture(scope="session")
def folder(tmp_path_factory, model, tokenizer) -> Path:
    """live.html, two.html with two live models, and widgets.html with one widget of every other kind."""
    out = tmp_path_factory.mktemp("site")
    write_assets(out / "rxt")
    trace = reference(model, tokenizer).trace
    lives = [{"of": "fact answered", "arm": "memory_on", "age": age, "alive": alive} for age, alive in ((1, 1.0), (3, 0.75), (6, 0.5))]
    widgets = [MemoryMap(trace, tokenizer), GateExplorer(trace_rows(trace, tokenizer)), SlotSurvival(lives),
               CostMeter(cost_rows(model.config, 12))]
    bodies = {"live": live_html(), "two": live_html() * 2, "widgets": "".join(widget.as_html() for widget in widgets)}
    for name, body in bodies.items():
        (out / f"{name}.html").write_text(PAGE.format(title=name, body=body, module=MODULE, style=STYLE), encoding="utf-8")
    return out


@pytest.fixture(scope="session")
def address(folder) -> str:
    with served(folder) as where:
        yield where


@pytest.fixture
def visit(browser, address):
    """A function that opens a page; at the end no script may have complained."""
    contexts, complaints = [], []

    def open_page(name: str = "live", by=browser, script: str = "", **how):
        context = by.new_context(reduced_motion="reduce", **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(f"{address}{name}.html")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def says(page, pattern: str, which: int = 0) -> str:
    """Wait until the status line matches, and return it."""
    page.wait_for_function("([p, n]) => new RegExp(p).test(document.querySelectorAll('.rxt-status')[n]?.textContent)", arg=[pattern, which])
    return page.locator(".rxt-status").nth(which).inner_text()


def loaded(page):
    page.get_by_role("button", name="Load the model").click()
    says(page, "^Ready")
    return page


def say(page, text: str) -> str:
    """Type a message, wait until it is remembered, return the answer."""
    page.evaluate("document.querySelector('.rxt-status').textContent = ''")
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    says(page, "^Remembered")
    return page.locator(".rxt-model span").last.inner_text()


TALK = """async ([base, dialogues]) => {
    const [{ Conversation }, { LocalEngine }] = await Promise.all(["widgets", "engine"].map((name) => import(`${base}rxt-${name}.mjs`)));
    const loaded = await LocalEngine.fetch(base), said = [];
    for (const queries of dialogues) {
        const talk = new Conversation(loaded);
        for (const text of queries) await talk.say(text);
        const short = dialogues.length > 1; // memories are large
        said.push(talk.turns.map(({ ids, from, answer, memory, ms }) => ({ ids, from, answer, ms, memory: short ? null : [...memory] })));
    }
    return { name: loaded.name, said };
}"""


def talk(page, address: str, dialogues: list[list[str]]) -> dict:
    """Let the page's own modules go through conversations."""
    return page.evaluate(TALK, [f"{address}rxt/", dialogues])


# ------------------------------------------------------------------------------------------------ the same model
def test_single_precision_says_the_same_words(model, tokenizer):
    assert reference(rounded(load(SHIPPED)).float(), tokenizer).answers == reference(model, tokenizer).answers


def check_against_pytorch(done: dict, folder: Path) -> None:
    turns, expected = done["said"][0], json.loads((folder / "rxt" / "reference.json").read_text())
    assert [turn["ids"] for turn in turns] == [turn["event"] for turn in expected]
    memory = torch.tensor([turn["memory"] for turn in turns])
    reference = load_file(folder / "rxt" / "reference.safetensors")["memory"][1:].flatten(1)
    assert (memory - reference).abs().max() < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_conversation_is_pytorchs(launch, visit, address, folder, engine):
    flags, script, name = ENGINES[engine]
    done = talk(visit(by=launch(*flags), script=script), address, [list(PREPARED)])
    assert done["name"] == name
    check_against_pytorch(done, folder)


@pytest.mark.parametrize("simd", [True, False])
def test_conversation_is_pytorchs_in_firefox(firefox, address, folder, simd):
    without = "" if simd else "WebAssembly.instantiate = async () => { throw new Error('no SIMD') };"
    ask = f"(async () => {{ {without} return ({TALK})({json.dumps([f'{address}rxt/', [list(PREPARED)]])}); }})()"
    done = firefox(f"{address}live.html", ask)
    assert done["name"] == ("WebAssembly SIMD" if simd else "JavaScript")
    check_against_pytorch(done, folder)


def test_recall_asked_in_the_page_is_the_checkpoints(visit, address, model, tokenizer):
    dialogues = make_dialogues("base", 50, split="test_iid", seed=1000)
    done = talk(visit(), address, [[event.query for event in dialogue.events] for dialogue in dialogues])
    assert [[turn["answer"] for turn in turns] for turns in done["said"]] == run_freely(model, dialogues, tokenizer, max_new_tokens=ANSWER)


def test_compare_button_agrees_and_notices_another_weight(visit, address):
    page = loaded(visit())
    page.get_by_role("button", name="Compare with PyTorch").click()
    assert re.match(r"12 of 12 answers.*at most \d\.\de-[678] in numbers of up to", says(page, "PyTorch's"))

    def with_another_gate(route):
        body = bytearray(route.fetch().body())
        entry = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["memory.gate.to_gate.bias"]
        at = 8 + int.from_bytes(body[:8], "little") + entry["data_offsets"][0]
        body[at : at + 2] = b"\x00\x3c"  # one
        route.fulfill(body=bytes(body))

    page = visit("two")
    page.route("**/model.*.safetensors", with_another_gate)
    page.get_by_role("button", name="Load the model").first.click()
    says(page, "^Ready")
    page.get_by_role("button", name="Compare with PyTorch").click()
    assert not re.search(r"at most \d\.\de-[678]", says(page, "PyTorch's"))


# ------------------------------------------------------------------------------------------------ before and while loading
def test_nothing_is_fetched_before_it_is_asked_for(visit, address):
    page = visit()
    page.wait_for_selector(".rxt-heat")
    assert page.evaluate("performance.getEntriesByType('resource').map(e => e.name).filter(n => /json|safetensors/.test(n))") == []
    assert PREPARED[0] in page.locator(".rxt-log").inner_text()


def test_without_scripts_the_conversation_and_the_tables_are_there(visit):
    page = visit(java_script_enabled=False)
    assert PREPARED[0] in page.inner_text("main") and "make serve" in page.inner_text("main")
    assert visit("widgets", java_script_enabled=False).locator("table").count() == 4


def test_opened_as_a_file_it_says_what_to_do(browser, folder):
    page = browser.new_page()
    page.goto((folder / "live.html").as_uri())
    assert "make serve" in page.inner_text("main")
    page.close()


@pytest.mark.parametrize("trouble, said", [("missing", "404"), ("cut off", "cut off"), ("another page", "cut off")])
def test_trouble_with_the_weights_is_said_and_a_retry_helps(visit, trouble, said):
    answers = {"missing": lambda route: route.fulfill(status=404),
               "cut off": lambda route: route.fulfill(body=route.fetch().body()[:100_000]),
               "another page": lambda route: route.fulfill(body="<!doctype html><title>Log in</title>")}
    page = visit()
    page.route("**/model.*.safetensors", answers[trouble])
    page.get_by_role("button", name="Load the model").click()
    assert said in says(page, "^Not loaded")
    page.unroute("**/model.*.safetensors")
    page.get_by_role("button", name="Try again").click()
    says(page, "^Ready")


# ------------------------------------------------------------------------------------------------ talking
def test_a_keyboard_is_enough(visit):
    page = visit()
    page.get_by_role("button", name="Load the model").focus()
    page.keyboard.press("Enter")
    says(page, "^Ready")
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("Tom has the hat.")
    page.keyboard.press("Enter")
    says(page, "^Remembered")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Message"
    for name in ("Empty it", "Try every slot", "Rewind", "Copy this chat to the other", "Swap their memories", "Download", "Open a memory"):
        page.get_by_role("button", name=name).focus()
        assert page.evaluate("document.activeElement.textContent") == name


def test_answers_and_notes_are_text_and_what_cannot_be_read_is_refused(visit):
    page = loaded(visit())
    say(page, "<b>[EOS]</b> [A]")
    assert page.locator(".rxt-you span").last.inner_text() == "<b>[EOS]</b> [A]"
    for text, why in (("hat " * 80, "fewer words"), ("   ", "empty")):
        page.get_by_label("Message", exact=True).fill(text)
        page.keyboard.press("Enter")
        says(page, why)
    assert page.locator(".rxt-you").count() == 1


def test_the_memory_is_updated_after_the_answer_is_shown(visit):
    page = loaded(visit())
    page.evaluate("""() => { window.seen = []; const status = document.querySelector('.rxt-status');
        const last = () => document.querySelector('.rxt-model:last-child span')?.textContent;
        new MutationObserver(() => seen.push([status.textContent.slice(0, 11), last()])).observe(status, { childList: true }); }""")
    answer = say(page, "Tom has the hat.")
    assert ["remembering", answer] in page.evaluate("seen")


def test_experiments_change_what_is_remembered(visit):
    page = loaded(visit())
    press = lambda name: page.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    say(page, "Tom has the hat.")
    assert say(page, "Who has the hat?") == "Tom has the hat."
    press("Copy this chat to the other")
    press("Clear the memory")
    assert "Tom" not in say(page, "Who has the hat?")
    press("Swap their memories")
    assert say(page, "Who has the hat?") == "Tom has the hat."
    page.get_by_label("chat B").check()
    assert "Tom" not in say(page, "Who has the hat?")
    page.get_by_label("Moment", exact=True).nth(1).select_option("2")  # 0 is the slider beside the memory
    press("Rewind")
    assert say(page, "Who has the hat?") == "Tom has the hat."


def test_gates_held_at_zero_write_nothing(visit):
    page = loaded(visit())
    page.get_by_label("at 0: nothing is written").check()
    say(page, "Tom has the hat.")
    assert "No slot changed." in page.locator(".rxt-scale").inner_text()


def test_emptying_all_slots_in_turn_names_those_that_matter(visit):
    page = loaded(visit())
    say(page, "Tom has the hat.")
    page.get_by_role("button", name="Try every slot").click()
    page.wait_for_selector(".rxt-result table")
    assert "Tom has the hat." in page.locator(".rxt-result").inner_text()


def test_a_memory_goes_to_python_and_back(visit, model, tmp_path):
    page = loaded(visit())
    say(page, "Tom has the hat.")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    waiting.value.save_as(tmp_path / "memory.safetensors")
    memory, events = memory_file.load(tmp_path / "memory.safetensors", memory_file.identity(model))
    assert events == 1 and memory.shape == model.state_shape(1)

    page = loaded(visit())
    page.get_by_label("Open a memory").set_input_files(tmp_path / "memory.safetensors")
    page.wait_for_function("document.querySelector('.rxt-log').textContent.includes('a memory of 1 events')")
    assert say(page, "Who has the hat?") == "Tom has the hat."


def test_a_model_of_ones_own_is_loaded_from_files(visit, folder):
    page = loaded(visit())
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    mine = [folder / "rxt" / "config.json", folder / "rxt" / "tokenizer.json", *(folder / "rxt").glob("model.*.safetensors")]
    page.get_by_label("Files of an exported model").set_input_files(mine[:2])
    says(page, "pick config.json")
    page.get_by_label("Files of an exported model").set_input_files(mine)
    says(page, "^Ready")


def test_two_live_models_on_a_page_are_independent(visit):
    page = visit("two")
    first, second = page.locator("main > .rxt").all()
    for part in (first, second):
        part.get_by_role("button", name="Load the model").click()
    says(page, "^Ready", 0), says(page, "^Ready", 1)
    first.get_by_label("Message", exact=True).fill("Tom has the hat.")
    page.keyboard.press("Enter")
    says(page, "^Remembered", 0)
    assert "Ready" in says(page, "", 1) and second.locator(".rxt-you").count() == 0


def test_the_tour_has_six_steps_that_can_be_done(visit):
    page = visit()
    titles = []
    for step in range(6):
        titles.append(page.locator(".rxt-tour .rxt-head3").inner_text())
        page.get_by_role("button", name="Do it").click()
        page.wait_for_timeout(300)
        page.wait_for_function("!/…/.test(document.querySelector('.rxt-status').textContent)")
        if step < 5:
            page.get_by_role("button", name="Next", exact=True).click()
    assert [int(re.search(r"step (\d) of 6", title)[1]) for title in titles] == [1, 2, 3, 4, 5, 6]
    page.wait_for_function("document.querySelectorAll('.rxt-you').length >= 1")


def test_five_hundred_turns_do_not_grow(visit, address):
    page = visit()
    session = page.context.new_cdp_session(page)
    page.evaluate(f"""async () => {{
        const {{ Conversation }} = await import("{address}rxt/{MODULE}"), {{ LocalEngine }} = await import("{address}rxt/{ENGINE}");
        const talk = window.talk = new Conversation(await LocalEngine.fetch("{address}rxt/"));
        window.go = async (turns) => {{ for (let n = 0; n < turns; n++) await talk.say({json.dumps(list(PREPARED))}[n % 12]); }};
    }}""")

    def bytes_after(turns: int) -> int:
        page.evaluate(f"go({turns})")
        session.send("HeapProfiler.collectGarbage")
        usage = session.send("Runtime.getHeapUsage")
        return usage["usedSize"] + usage.get("backingStorageSize", 0)

    assert bytes_after(400) < 1.1 * bytes_after(100)


# ------------------------------------------------------------------------------------------------ to look at
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["live", "widgets"])
def test_it_is_accessible_and_fits(visit, name, mode):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(name, **MODES[mode])
    if name == "live":
        loaded(page)
        say(page, "Tom has the hat.")
        page.get_by_role("button", name="Try every slot").click()
        page.wait_for_selector(".rxt-result table")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [f"{v['id']}: {v['nodes'][0]['target']} {v['nodes'][0]['failureSummary']}" for v in Axe().run(page).response["violations"]] == []


def test_sliders_and_choices_of_widgets_draw_anew(visit):
    page = visit("widgets")
    memory, gates, survival, cost = page.locator("main > .rxt").all()
    before = memory.locator(".rxt-scale").inner_text()
    memory.get_by_role("slider").fill("5")
    assert "Event 5" in memory.inner_text() and memory.locator(".rxt-scale").inner_text() != before
    gates.get_by_label("open means a gate above").fill("0.9")
    assert "above 0.9" in gates.inner_text()
    survival.get_by_role("slider").fill("3")
    assert "75 %" in survival.locator("svg[role=img]").get_attribute("aria-label")
    cost.get_by_role("slider").fill("9")
    assert "Turn 9" in cost.inner_text()


def test_on_paper_pictures_stay_and_buttons_go(visit):
    page = visit()
    page.wait_for_selector(".rxt-heat")
    page.emulate_media(media="print")
    assert page.locator(".rxt-heat").first.is_visible() and page.locator(".rxt-log").is_visible()
    assert not page.get_by_role("button", name="Say").is_visible()


def test_module_and_page_are_small(folder):
    assert len(gzip.compress(bundle("pages").encode())) < 15_360
    assert len(gzip.compress(bundle("engine").encode())) < 10_000
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.parent.name == "rxt") < 5_000_000
