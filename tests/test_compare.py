"""RxT beside stateless decoders, and one thing changed at a time: who sees what, and that the rest stays equal."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from rxt_lite.config import BOOK, BOS, EOS, PAD, TINY, A, ModelConfig, Q
from rxt_lite.experiments.ablate import SIZES, TABLES, ablate_rows, measure
from rxt_lite.experiments.compare import STORY_SIZES, arms, compare_rows, story_compare_rows
from rxt_lite.experiments.stored import as_text, stored
from rxt_lite.models import DecoderLM, WindowLM

CONFIG = replace(TINY, max_len=64)


def event(*words):
    return torch.tensor([[BOS, Q, *words, A, words[0], EOS]])


def remembered(model, *events):
    state = model.init_state(len(events[0]))
    for tokens in events:
        state = model.remember(tokens, state)
    return state


# --- the window ------------------------------------------------------------------------------


def test_only_the_last_whole_events_are_left():
    first, second, third = event(10, 11), event(12), event(13, 14, 15)  # 7, 6 and 8 tokens
    for history, kept in ((100, [first, second, third]), (20, [second, third]), (14, [second, third]), (13, [third]), (7, [])):
        left = remembered(WindowLM(CONFIG, history), first, second, third)
        assert left.tolist() == (torch.cat(kept, dim=1).tolist() if kept else [[]])


def test_each_conversation_is_cut_by_itself():
    long, short = event(10, 11, 12, 13, 14), event(12)
    both = torch.full((2, long.shape[1]), PAD)
    both[0], both[1, : short.shape[1]] = long[0], short[0]
    left = remembered(WindowLM(CONFIG, 8), both)
    assert left.tolist() == [[PAD] * 6, short[0].tolist()]


@torch.no_grad()
def test_it_answers_like_a_decoder_with_that_transcript_and_knows_nothing_older():
    torch.manual_seed(0)
    window, full = WindowLM(CONFIG, 14).eval(), DecoderLM(CONFIG).eval()
    full.load_state_dict(window.state_dict())
    old, new, asked = event(10, 11), event(12), event(13)
    assert torch.equal(window(asked, remembered(window, old, new, new)), full(asked, remembered(full, new, new)))
    assert torch.equal(window(asked, remembered(window, old, new, new)), window(asked, remembered(window, event(20), new, new)))
    assert not torch.allclose(full(asked, remembered(full, old, new)), full(asked, remembered(full, new)))


def test_without_history_every_message_stands_alone():
    assert remembered(WindowLM(CONFIG, 0), event(10), event(11)).shape == (1, 0)


# --- the comparison --------------------------------------------------------------------------


def test_sizes_are_what_their_names_say():
    count = {arm: sum(p.numel() for p in make().parameters()) for arm, make in arms(BOOK).items()}
    rxt = count["rxt", "memory"]
    for (name, _), n in count.items():
        low, high = {"rxt": (1, 1), "equal": (1, 1.15), "double": (1.8, 2.1)}[name]
        assert low <= n / rxt <= high


def test_arms_read_as_much_as_they_may(tmp_path):
    rows = list(compare_rows(tmp_path, SIZES["ci"]))
    tokens = {(row["model"], row["context"]): row["tokens"] for row in rows}
    assert len(tokens) == 7 and len({row["n"] for row in rows}) == 1
    assert tokens["equal", "no history"] < tokens["equal", "window"] < tokens["equal", "full history"]
    assert tokens["rxt", "memory"] == 2 * tokens["equal", "no history"]
    assert list(compare_rows(tmp_path, SIZES["ci"])) == rows  # finished runs are loaded


def test_the_same_arms_read_the_same_stories(tmp_path):
    tale = "Once upon a time there was a girl named {0}. {0} had a red hat. She went to the park. {0} was happy number {1}. "
    stories = tmp_path / "stories.txt"
    stories.write_text("<|endoftext|>".join(tale.format("Lily" if n % 2 else "Anna", n) * 2 for n in range(120)))
    rows = list(story_compare_rows(tmp_path / "runs", STORY_SIZES["ci"], str(stories)))
    told = {(row["model"], row["context"], row["turns"]): row for row in rows}
    assert len(told) == (7 + 3) * 3 and {row["turns"] for row in rows} == {"all", "next", "recall"}
    for row in rows:
        same = told["rxt", "memory", row["turns"]]
        assert (row["n"], row["asked"]) == (same["n"], same["asked"]) and row["low"] < row["bits_per_byte"] < row["high"]
    tokens = {context: told["equal", context, "all"]["tokens"] for context in ("no history", "window", "full history")}
    assert tokens["no history"] < tokens["window"] <= tokens["full history"]
    assert told["rxt", "memory", "all"]["bits_per_byte"] != told["rxt", "memory reset", "all"]["bits_per_byte"]
    assert told["rxt", "memory", "all"]["tokens"] == pytest.approx(2 * tokens["no history"])


# --- one thing at a time ---------------------------------------------------------------------


def changes(variant):
    base = {f.name: f.default for f in fields(ModelConfig)}
    return {k for k, v in variant.config.items() if base[k] != v} | set(variant.options) | (set() if variant.lessons else {"lessons"})


def test_early_stages_come_first_and_their_runs_are_kept(tmp_path):
    size = replace(SIZES["ci"], steps=1, dialogues=4)
    run = lambda table: measure(tmp_path, size, table, "8", TABLES[table]["8"], seed=0)  # noqa: E731
    early, from_nothing = run("slots, pre-trained"), run("slots")
    assert {path.name for path in (tmp_path / "seed-0").glob("*.run")} == {
        "slots-8.run", *(f"slots-pre-trained-8{stage}.run" for stage in (".joint_lm", ".memory_attention", ""))}
    assert early["steps"] == from_nothing["steps"] == 4 and early["loss"] != from_nothing["loss"]
    assert run("slots, pre-trained") == early, "loaded, not trained anew"


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_the_books_own_choice_and_every_other_row_differs_from_it(table):
    own = [name for name, variant in TABLES[table].items() if not changes(variant)]
    assert len(own) == 1
    for variant in TABLES[table].values():
        replace(SIZES["cpu"].config, **variant.config)  # a shape that is allowed


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown table 'gates'; choose from gate, memory"):
        list(ablate_rows(tmp_path, SIZES["ci"], ["gates"]))


def test_rows_carry_their_controls(tmp_path):
    rows = list(ablate_rows(tmp_path, SIZES["ci"], ["lessons"]))
    assert [row["variant"] for row in rows] == list(TABLES["lessons"])
    shown = {"recall", "alone", "rival", "memory_reset", "memory_swapped", "last_event_only", "cosine", "rank"}
    assert all(shown <= set(row) for row in rows)


def test_a_table_as_text_has_a_line_for_each_variant_with_means_over_its_seeds():
    row = {"table": "gate", "variant": "none", "recall": 0.5, "low": 0.4, "high": 0.6, "n": 96, "alone": 0.9, "rival": 0.3,
           "memory_reset": 0.1, "memory_swapped": 0.1, "last_event_only": 0.2, "cosine": 0.0, "rank": 4.0, "steps": 300}
    text = as_text([row, row | {"recall": 0.7}, row | {"variant": "slot", "steps": 900}])
    head, none, slot, *_, seeds, about = text.split("\n")
    assert head.split()[:3] == ["all", "alone", "rival"] and none.split() == "none 0.60 0.90 0.30 0.10 0.10 0.20 0.00 4.00 300".split()
    assert slot.split()[-1] == "900" and seeds == "96 questions, training seeds: 1 or 2" and "at most 0.10" in about
    assert as_text([row], of="table").split("\n")[1].startswith("gate ") and "no stored rows" in as_text([])
    assert "rank" not in as_text([row | {"plan": "ours"}], of="plan")


def test_tables_of_stored_rows_fit_the_page():
    """About eighty characters stand in a column of the book."""
    plans, ablated = (stored(name, Path(__file__).parents[1] / "book/results") for name in ("stages.jsonl", "ablate.jsonl"))
    texts = [as_text(plans, of="plan"), *(as_text([row for row in ablated if row["table"] == table]) for table in TABLES)]
    assert max(len(line) for text in texts for line in text.split("\n")) <= 80
