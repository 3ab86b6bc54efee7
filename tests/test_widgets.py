"""The front end: the engine in JavaScript computes what PyTorch computes, and the widgets show it."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from rxt_lite.config import TINY
from rxt_lite.data.dialogues import Probe, answer_is_right, make_dialogues
from rxt_lite.data.tokenizer import decode, encode_query, load_tokenizer
from rxt_lite.data.world import facts_told
from rxt_lite.experiments.cost import answer_macs, cost_rows, update_macs
from rxt_lite.experiments.slots import trace_rows
from rxt_lite.models import DecoderLM, RxT
from rxt_lite.models.checkpoint import load, save
from rxt_lite.widgets import CostMeter, GateExplorer, LiveRxT, MemoryMap, SlotSurvival
from rxt_lite.widgets.bundle import bundle
from rxt_lite.widgets.export import PREPARED, PROFILE, check_profile, export_web, reference
from rxt_lite.widgets.notebook import as_bytes, from_bytes
from rxt_lite.widgets.page import table

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "rxt_lite" / "checkpoints" / "book" / "rxt"
MODULES = ROOT / "rxt_lite" / "widgets" / "js"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH; install it (Debian: apt-get install nodejs)")


# ------------------------------------------------------------------------------------------------ what node is given
@pytest.fixture(scope="session")
def web(tmp_path_factory) -> Path:
    """The shipped model as the page gets it, and beside it cases that Python has worked out."""
    out = tmp_path_factory.mktemp("web")
    export_web(SHIPPED, out)
    cases = {"tokens": token_cases(4000), "facts": fact_cases(), "costs": cost_cases(), "shapes": shape_cases()}
    for name, rows in cases.items():
        (out / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return out


def drawn_text(dice: random.Random) -> str:
    """A few pieces of all the scripts, blanks and marks that byte-level tokenizers are known to trip over."""
    pieces = ["hat", " the ", "it's", "'ll", "Ünï", "中文字", "日本", "👩‍👩‍👧", "🇩🇪", "é", "ﬁ", "\u00a0", "\u0085", "\ufeff",
              "\u200d", "\u2028", "\x00", "\x1b", "\x1f", "  ", "\t", "\n\n", "٣", "१२", "Ⅷ", "½", "123",
              "!?", "...", "[EOS]", "[A]", "[Q", "_", "ΑΒΓ", "ß"]
    text = "".join(dice.choice(pieces) if dice.random() < 0.8 else chr(dice.randrange(1, 0xD800)) for _ in range(dice.randrange(1, 9)))
    return text if text.strip() else text + "x"


def token_cases(count: int) -> list[dict]:
    tokenizer, dice = load_tokenizer(SHIPPED / "tokenizer.json"), random.Random(0)
    texts = [drawn_text(dice) for _ in range(count)]
    return [{"text": text, "ids": ids, "decoded": decode(tokenizer, ids)} for text, ids in ((t, encode_query(tokenizer, t)) for t in texts)]


def fact_cases() -> list[dict]:
    """Every message of some dialogues; questions with a right answer, that of another dialogue, and a refusal."""
    rows = []
    for dialogue in make_dialogues("overwrite", 40, split="test_iid", seed=3):
        rows += [{"text": event.query, "facts": facts_told(event.query)} for event in dialogue.events]
        for probe in dialogue.probes:
            if probe.kind == "recall":
                for answer in (dialogue.events[probe.turn].answer, "I do not know.", f"{probe.entity} red Tom apples {probe.value}"):
                    right = answer_is_right(Probe(turn=0, kind="recall", attribute=probe.attribute, entity=probe.entity,
                                                  value=probe.value), answer)
                    fact = {"attribute": probe.attribute, "entity": probe.entity, "value": probe.value}
                    rows.append({"text": "", "facts": [], "fact": fact, "answer": answer, "right": right})
    return rows


def cost_cases() -> list[dict]:
    config, rows = load(SHIPPED).config, []
    for past, query, answer in ((0, 7, 3), (40, 9, 6), (500, 12, 8)):
        late = 1 if past else 0
        rows.append({"past": past, "query": query, "answer": answer, "macs": {
            "rxt_answer": answer_macs(config, query, 0, answer, slots=True),
            "rxt_update": update_macs(config, query + answer),
            "reread": answer_macs(config, past + query, 0, answer, slots=False),
            "prefix_cached": answer_macs(config, query + late, past - late, answer, slots=False)}})
    return rows


@torch.no_grad()
def shape_cases() -> list[dict]:
    """Small random models in the shapes that the shipped one has not."""
    rows = []
    for changes in ({"self_heads": (4, 2), "cross_heads": (4, 1), "memory_heads": (2, 2)},
                    {"self_heads": (2, 4), "memory_heads": (1, 4)}, {"stateless_before": 1, "stateless_after": 2},
                    {"slot_embeddings": False, "head_norm": False}, {"d_model": 24, "n_layers": 3}):
        config = replace(TINY, vocab_size=30, **{"d_model": 16, "n_slots": 3, "d_ff": 20, **changes})
        torch.manual_seed(0)
        model, tokens = RxT(config).eval(), torch.tensor([[2, 5, 9, 11, 6]])
        memory = torch.randn(model.state_shape(1))
        weights = {name: {"shape": list(w.shape), "data": w.flatten().tolist()} for name, w in model.state_dict().items()}
        rows.append({"config": asdict(config), "weights": weights, "tokens": tokens[0].tolist(), "memory": memory.flatten().tolist(),
                     "logits": model(tokens, memory)[0, -1].tolist(), "after": model.remember(tokens, memory).flatten().tolist()})
    return rows


def node(web: Path, modules: Path = MODULES, only: str = "") -> subprocess.CompletedProcess:
    command = ["node", "--test", *([f"--test-name-pattern={only}"] if only else []), "tests/js/engine.test.mjs"]
    where = {"RXT_WEB": str(web), "RXT_JS": str(modules)}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **where}, capture_output=True, text=True)


# ------------------------------------------------------------------------------------------------ the engine
@needs_node
def test_engine_keeps_its_facts(web):
    done = node(web)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


MUTANTS = {
    "the rotation turns the other way": ("algebra", "even * cos - odd * sin", "even * cos + odd * sin"),
    "the gate is turned round": ("rxt", "g * update[at] + (1 - g) * slots[at]", "(1 - g) * update[at] + g * slots[at]"),
    "slots ask without their names": ("rxt", "names ? add(named, names) : named", "named"),
    "one weight is off by a hundredth": ("rxt", "this.head = this.map(\"head\");",
                                         "this.head = this.map(\"head\"); this.tensors[\"memory.gate.to_gate.bias\"].data[0] += 0.01;"),
}


@needs_node
@pytest.mark.parametrize("what", MUTANTS)
def test_a_mistake_in_the_engine_is_seen(web, tmp_path, what):
    name, right, wrong = MUTANTS[what]
    shutil.copytree(MODULES, tmp_path / "js")
    module = tmp_path / "js" / f"{name}.mjs"
    text = module.read_text()
    assert text.count(right) == 1
    module.write_text(text.replace(right, wrong))
    assert node(web, tmp_path / "js", only="are PyTorch's").returncode != 0


def test_kernel_is_what_its_source_says():
    sys.path.insert(0, str(ROOT / "tools"))
    import kernel

    assert kernel.carried() == kernel.translated(), "run python tools/kernel.py"


# ------------------------------------------------------------------------------------------------ export
@pytest.mark.parametrize("setting, value", [
    ("memory_attention", "interlayer"), ("gate", "linear"), ("gate_activation", "tanh"), ("initial_slots", "gaussian"),
    ("n_experts", 4), ("query_key_norm", True), ("attention_gate", True)])
def test_export_names_the_setting_it_does_not_know(setting, value):
    assert setting in PROFILE
    with pytest.raises(ValueError, match=f"^{setting}="):
        check_profile(RxT(replace(TINY, **{setting: value})))


def test_export_refuses_another_kind_of_model(tmp_path):
    save(DecoderLM(TINY), tmp_path / "model", tokenizer=load_tokenizer(SHIPPED / "tokenizer.json"))
    with pytest.raises(ValueError, match="DecoderLM"):
        export_web(tmp_path / "model", tmp_path / "out")


def test_export_is_small_and_leaves_no_old_weights(web, tmp_path):
    (tmp_path / "model.0123.safetensors").write_text("old")
    files = export_web(SHIPPED, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)
    assert sum(file.stat().st_size for file in files) < 5_000_000


# ------------------------------------------------------------------------------------------------ in a notebook
@pytest.fixture(scope="module")
def shipped():
    return load(SHIPPED), load_tokenizer(SHIPPED / "tokenizer.json")


@pytest.fixture(scope="module")
def said(shipped):
    return reference(*shipped)


@pytest.fixture
def widgets(shipped, said) -> list:
    model, tokenizer = shipped
    lives = [{"of": "fact", "arm": "memory_on", "age": 1, "alive": 0.5}]
    return [MemoryMap(said.trace, tokenizer), SlotSurvival(lives), GateExplorer(trace_rows(said.trace, tokenizer)),
            CostMeter(cost_rows(model.config, 4)), LiveRxT(model, tokenizer)]


def test_every_widget_is_html_with_a_table_or_a_conversation_too(widgets):
    for widget in widgets:
        shown, _ = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in shown
        assert f'data-rxt="{type(widget).__name__}"' in shown["text/html"]
        assert "<table" in shown["text/html"] or PREPARED[0] in shown["text/html"]


def test_traits_can_be_observed_linked_and_set(widgets, shipped):
    import traitlets

    meter, other, seen = widgets[3], CostMeter(cost_rows(shipped[0].config, 4)), []
    meter.observe(lambda change: seen.append(change.new), names="turn")
    traitlets.link((meter, "turn"), (other, "turn"))
    meter.turn = 3
    assert (seen, other.turn) == ([3], 3)


def test_no_value_ends_the_script_it_stands_in():
    rows = [{"event": 0, "layer": 0, "slot": 0, "gate": 0.5, "tokens": ["</script><b>"]}]
    html = GateExplorer(rows).as_html()
    assert html.count("</script>") == 1 and "<\\/script><b>" in html
    assert "&lt;b&gt;" in table("rows", [{"text": "<b>"}])


@pytest.mark.parametrize("make, missing", [(CostMeter, "arm"), (SlotSurvival, "age"), (GateExplorer, "event")])
def test_rows_of_another_kind_are_refused(make, missing):
    with pytest.raises(ValueError, match=f"no '{missing}'"):
        make([{"something": 1}])


def exchanged(widget: LiveRxT, content: dict, memory: torch.Tensor) -> list[tuple[dict, list]]:
    """What the kernel sends back for a request."""
    sent = []
    widget.send = lambda content, buffers=None: sent.append((content, buffers or []))
    widget._receive(widget, {"id": 7, **content}, [memoryview(as_bytes(memory))])
    assert all(content["id"] == 7 for content, _ in sent)
    return sent


def test_the_kernels_model_answers_and_remembers(shipped, said):
    model, tokenizer = shipped
    widget, memory = LiveRxT(model, tokenizer), model.init_state(1)
    for n, (query, answer) in enumerate(zip(said.queries, said.answers)):
        ids = encode_query(tokenizer, query)
        *tokens, (done, read) = exchanged(widget, {"command": "answer", "ids": ids}, memory)
        assert [content["token"] for content, _ in tokens] == answer and done["done"]
        assert len(read) == model.config.n_layers
        [(_, (after, gate, *write))] = exchanged(widget, {"command": "remember", "ids": ids + answer, "hold": None}, memory)
        memory = from_bytes(after, model.state_shape(1))
        assert (memory[:, 0] - said.trace.slots[n + 1]).abs().max() < 1e-5
        assert len(write) == model.config.n_layers and len(gate) == 4 * model.config.n_layers * model.config.n_slots


@pytest.mark.parametrize("hold", [0, 1])
def test_the_kernel_holds_gates_as_the_page_does(shipped, said, hold):
    model, tokenizer = shipped
    memory = said.trace.slots[3][:, None]
    request = {"command": "remember", "ids": said.trace.tokens[0].tolist(), "hold": hold}
    [(_, (after, *_))] = exchanged(LiveRxT(model, tokenizer), request, memory)
    kept = torch.allclose(from_bytes(after, memory.shape), memory)
    assert kept is (hold == 0)


def test_a_request_that_fails_is_answered_with_its_reason(shipped):
    [(content, _)] = exchanged(LiveRxT(*shipped), {"command": "answer", "ids": [0] * 100}, shipped[0].init_state(1))
    assert "do not fit" in content["error"] or "empty" in content["error"]


def test_a_model_in_training_does_not_talk():
    with pytest.raises(ValueError, match="training mode"):
        LiveRxT(RxT(TINY), load_tokenizer(SHIPPED / "tokenizer.json"))


@needs_node
@pytest.mark.parametrize("main", ["pages", "engine", "notebook"])
def test_a_bundle_is_one_module_without_imports(main, tmp_path):
    (tmp_path / "bundle.mjs").write_text(bundle(main))
    assert re.findall(r"^import .*", bundle(main), re.MULTILINE) == []
    assert subprocess.run(["node", "--check", tmp_path / "bundle.mjs"]).returncode == 0  # no name stands for two things
