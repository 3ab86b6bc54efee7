"""RxT against stateless: the table as published, the tools of the comparison on rows made up for them, the checks of its exercises."""

import json
import math
import re
import statistics
from collections import defaultdict

import matplotlib
import pytest
import torch
from test_chapters import cells, published, run, verdict

from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.experiments.ablate import SIZES
from rxt_lite.experiments.intervals import wilson
from rxt_lite.experiments.stored import stored

CHAPTER = "rxt-or-stateless"
RXT = ("rxt", "memory")
RIVALS = [(size, view) for size in ("equal", "double") for view in ("no history", "window", "full history")]
TOKENS = {"memory": 32, "no history": 16, "window": 31, "full history": 140}


def made_up(recalls, seeds=(0,), n=400):
    """Rows as compare_rows makes them, with these recalls: {arm: recall of seed 0}, a little higher with each seed."""
    rows = []
    for seed in seeds:
        for (name, context), recall in recalls.items():
            right = min(n, round(recall * n) + 4 * seed)
            low, high = wilson(right, n)
            rows.append({"model": name, "context": context, "seed": seed, "parameters": 1000, "perplexity": 2 - recall, "accuracy": 0.9,
                         "recall": right / n, "low": low, "high": high, "n": n, "tokens": TOKENS[context], "steps": 3})
    return rows


def alike(value, **others):
    """The same recall for all seven arms, but for those named as size_view."""
    recalls = {arm: value for arm in (RXT, *RIVALS)}
    return recalls | {tuple(name.replace("_", " ").split(" ", 1)): recall for name, recall in others.items()}


@pytest.fixture(scope="module")
def tools():
    chapter = cells(CHAPTER)
    names = {"math": math, "statistics": statistics, "defaultdict": defaultdict}
    return run([chapter["tables"], chapter["difference"], chapter["reading"].split("\n\n\nprint(luck")[0]], RXT=RXT, **names)


# ------------------------------------------------------------------------------------------------- what is quoted
def test_the_quoted_table_and_the_numbers_computed_with_are_the_same():
    chapter = cells(CHAPTER)
    table = run([chapter["published-code"].split("\n\n")[0]])["PUBLISHED"]
    lines = re.findall(r"^\| ([^|]+) \| (\d\.\d\d) \| (\d\d) % \|$", chapter["published"], re.MULTILINE)
    assert {name: (float(perplexity), int(accuracy) / 100) for name, perplexity, accuracy in lines} == table
    assert [table[name][0] for name in table] == [4.37, 2.74, 2.56, 2.31, 2.50, 2.18]
    assert "2510.03561" in chapter["published"] and "Table 3" in chapter["published"] and "Table 4" in chapter["published"]


# ------------------------------------------------------------------------------------------------- labels and views
def test_free_labels_change_the_score_and_not_the_model():
    names = run([cells(CHAPTER)["how-much-code"].split("\n\n\n")[0]])
    for words in (2, 10):
        perplexity, accuracy = names["with_free"](16.0, 0.5, words)
        assert perplexity == pytest.approx(math.exp(words * math.log(16) / (words + 2)))
        assert accuracy == pytest.approx((words / 2 + 2) / (words + 2))


@pytest.mark.parametrize("history, kept", [(0, []), (4, []), (5, [3]), (11, [3]), (12, [2, 3]), (14, [2, 3]), (15, [1, 2, 3])])
def test_the_view_keeps_the_newest_whole_events(history, kept):
    events = {1: [1] * 3, 2: [2] * 7, 3: [3] * 5}
    view = run([cells(CHAPTER)["view-by-loop"].split("def words")[0]], BOOK=type("", (), {"max_len": 48}))["view_by_loop"]
    assert view(list(events.values()), history) == [events[i] for i in kept]


def test_the_rule_for_a_batch_is_the_loop_for_each_row():
    from rxt_lite.config import BOS, PAD
    from rxt_lite.models import DecoderLM
    from rxt_lite.models.base import pack

    chapter = cells(CHAPTER)
    names = run([chapter["window-class"].split("\n\n\nshape")[0]], torch=torch, pack=pack, BOS=BOS, PAD=PAD, DecoderLM=DecoderLM)
    view = run([chapter["view-by-loop"].split("def words")[0]], BOOK=type("", (), {"max_len": 48}))["view_by_loop"]
    talks = [[[BOS, 7], [BOS, 8, 9, 10], [BOS, 11, 12]], [[BOS, 7, 8, 9, 10, 11], [BOS, 12], [BOS]]]
    whole = torch.full((2, 9), PAD)
    for row, talk in enumerate(talks):
        flat = sum(talk, [])
        whole[row, : len(flat)] = torch.tensor(flat)
    for history in range(11):
        rows = names["newest"](whole, history).tolist()
        assert [[token for token in row if token != PAD] for row in rows] == [sum(view(talk, history), []) for talk in talks]


# ------------------------------------------------------------------------------------------------- reading the rows
def test_newcombe_as_by_hand_and_on_itself(tools):
    newcombe = tools["newcombe"]
    assert newcombe((0.9, 0.5, 0.95), (0.5, 0.38, 0.8)) == pytest.approx((0.4, -0.1, 0.53))
    mean, low, high = newcombe((0.3, 0.2, 0.5), (0.3, 0.2, 0.5))
    assert mean == 0 and low == -high


def test_newcombe_covers_the_true_difference_nineteen_times_in_twenty(tools):
    torch.manual_seed(0)
    n, p, q = 200, 0.9, 0.7
    right = torch.distributions.Binomial(n, torch.tensor([p, q])).sample((2000,)).int().tolist()
    intervals = [tools["newcombe"](*((k / n, *wilson(k, n)) for k in both)) for both in right]
    assert 0.93 < statistics.mean(low <= p - q <= high for _, low, high in intervals) < 0.97


def test_one_seed_has_the_interval_of_its_questions_and_several_have_students(tools):
    one, three = made_up(alike(0.5)), made_up(alike(0.5), seeds=(0, 1, 2))
    assert (tools["summary"](one)[RXT]["low"], tools["summary"](one)[RXT]["high"]) == wilson(200, 400)
    assert "luck of the questions" in tools["luck"](one) and "0, 1, 2" in tools["luck"](three)
    row, half = tools["summary"](three)[RXT], 4.303 * 0.01 / math.sqrt(3)
    assert (row["recall"], row["low"], row["high"]) == pytest.approx((0.51, 0.51 - half, 0.51 + half))


def test_differences_over_seeds_are_taken_seed_by_seed(tools):
    """Both arms rise by the same with every seed, so their difference does not vary at all."""
    rows = made_up(alike(0.5, rxt_memory=0.7), seeds=(0, 1, 2))
    assert tools["difference"](rows, RXT, ("equal", "window")) == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize(
    "recalls, says",
    [
        (alike(0.2, rxt_memory=0.9), ["supported"] * 4),
        (alike(0.9, rxt_memory=0.2), ["contradicted"] * 4),
        (alike(0.5), ["open"] * 4),
        (alike(0.9, equal_no_history=0.05, equal_window=0.2, equal_full_history=0.99), ["supported", "supported", "contradicted", "open"]),
    ],
)
def test_the_reading_follows_the_rows_whoever_wins(tools, recalls, says, seeds):
    rows = made_up(recalls, seeds)
    if seeds != (0,):  # three numbers that are not exactly parallel
        for row in rows:
            row["recall"] += 0.002 * ((row["seed"] * (1 + len(row["model"] + row["context"]))) % 3)
    sentences = tools["reading"](rows, {})
    assert [sentence.rsplit(": ", 1)[1] for sentence in sentences[:4]] == says


def test_the_reading_warns_of_rivals_below_their_ceilings_and_knows_what_is_missing(tools):
    views = {"no history": (0, 0.1), "window": (0.15, 0.2), "full history": (1, 1)}
    known = {name: {"seen": seen, "best": best} for name, (seen, best) in views.items()}
    said = "\n".join(tools["reading"](made_up(alike(0.1, rxt_memory=0.9, equal_full_history=1.0, double_window=0.15)), known))
    warned = re.findall("Careful: (.*?) sees", said)
    assert warned == ["equal, window", "double, full history"]  # not those who refuse where they see nothing
    assert "RxT is above the ceiling of the window, 0.20" in said
    assert "Best by recall: equal, full history." in said
    below = "\n".join(tools["reading"](made_up(alike(0.1)), known))
    assert "RxT is not surely above" in below
    two = tools["reading"](made_up({RXT: 0.9, ("equal", "no history"): 0.1}), {})
    assert two[0].endswith("supported") and [s.endswith("no rows for this") for s in two[1:4]] == [True] * 3
    assert "Best by recall: RxT." in two


@pytest.mark.parametrize("rows", [made_up(alike(0.5)), made_up(alike(0.5), seeds=(0, 1)), made_up({RXT: 0.0, RIVALS[0]: 1.0})])
def test_table_and_figure_take_all_arms_or_two(tools, rows, capsys):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from rxt_lite.figures import name_lines, paper

    tools["print_table"](rows)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 90
    run([cells(CHAPTER)["figure-ours"].replace("plt.show()", "")], **tools | {
        "rows": rows, "known": {"window": {"best": 0.2}}, "paper": paper, "name_lines": name_lines, "plt": plt})
    texts = {text.get_text() for text in plt.gcf().axes[0].texts}
    assert texts == {tools["arm_name"]((row["model"], row["context"])) for row in rows}
    plt.close("all")


def test_without_stored_rows_a_sentence_says_so_and_the_live_rows_are_read(tools, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    live = made_up({RXT: 0.3, ("equal", "no history"): 0.1})
    names = {"stored": stored, "live": live, "VIEWS": {}, "ceilings": lambda dialogues, views: {"of": len(dialogues)}}
    names |= {"SIZES": SIZES, "make_dialogues": make_dialogues}
    alone = run([cells(CHAPTER)["ours"]], **tools | names)
    assert alone["rows"] is live and alone["known"] == {}
    assert "There are no stored rows here" in capsys.readouterr().out
    (tmp_path / "results").mkdir()
    kept = [{**row, "hardware": "a machine"} for row in made_up(alike(0.5))]
    (tmp_path / "results" / "compare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    beside = run([cells(CHAPTER)["ours"]], **tools | names)
    assert beside["rows"] == kept and beside["known"] == {"of": SIZES["cpu"].dialogues}
    said = capsys.readouterr().out
    assert "There are no stored rows" not in said and "a machine" in said


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_rows_of_real_stories_are_a_line_for_each_arm_and_differences_need_two_seeds(tools, capsys, seeds):
    of = {"n": 9, "steps": 3, "parameters": 1000, "exact": 0.1, "tokens": 50.0, "low": 1.0, "high": 1.1}
    rows = [{"model": model, "context": context, "seed": seed, "turns": turns, **of, "bits_per_byte": 1.5 - (model == "rxt") / 2 + seed}
            for model, context in (RXT, *RIVALS) for seed in seeds for turns in ("all", "next", "recall")]
    run([cells(CHAPTER)["real-stories-code"]], **tools | {"stored": lambda name: rows, "RXT": RXT})
    said = capsys.readouterr().out
    assert len([line for line in said.splitlines() if "1,000" in line]) == 7 and max(map(len, said.splitlines())) <= 90
    assert ("+0.500 (+0.500 to +0.500)" in said) == (len(seeds) > 1)


# ------------------------------------------------------------------------------------------------- the exercises
@pytest.fixture(scope="module")
def checks():
    return run([cells(CHAPTER)["checks"]], math=math)


@pytest.mark.parametrize(
    "answer, says",
    [
        (None, "no answer yet"),
        ((8, 4), "right"),
        ((8.0, 64 ** (1 / 3)), "right"),
        ((4, 8), "changed places"),
        ((8, 8), "three labels now"),
        ((64, 64), "take the root"),
        ((3, 2), "these are the bits"),
        ((8, 64**0.25), "[A] was not asked for"),
        ((10, 7), "average the logarithms"),
        ((5, 3), "not right"),
    ],
)
def test_check_of_the_perplexities(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_perplexities"], answer)


def share(high, low):
    return math.log(low) / math.log(high)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda high, low, free: None, "no answer yet"),
        (lambda high, low, free: free * share(high, low) / (1 - share(high, low)), "right"),
        (lambda high, low, free: share(high, low), "the share of words"),
        (lambda high, low, free: free * (1 - share(high, low)) / share(high, low), "upside down"),
        (lambda high, low, free: free / (1 - share(high, low)), "the free ones are not words"),
        (lambda high, low, free: free * (low / high) / (1 - low / high), "their logarithms do"),
        (lambda high, low, free: share(high, low) / (1 - share(high, low)), "that is for one free label"),
        (lambda high, low, free: 99.0, "is not"),
    ],
)
def test_check_of_the_words(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_words"], answer)


def reads(turn, T, history, **changed):
    kept = min(turn - 1, history // T)
    right = {"rxt": 2 * T, "no history": T, "window": (kept + 1) * T, "full history": turn * T}
    return {name: value for name, value in (right | changed).items() if value is not None}


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda turn, T, history: None, "no answer yet"),
        (reads, "right"),
        (lambda turn, T, history: reads(turn, T, history, rxt=T), "reads the event twice"),
        (lambda turn, T, history: reads(turn, T, history, window=min((turn - 1) * T, history) + T), "keeps whole events"),
        (lambda turn, T, history: reads(turn, T, history, window=(history // T + 1) * T), "only t - 1 events to keep"),
        (lambda turn, T, history: reads(turn, T, history, window=min(turn - 1, history // T) * T), "window leaves out the event"),
        (lambda turn, T, history: reads(turn, T, history, **{"full history": (turn - 1) * T}), "full history leaves out the event"),
        (lambda turn, T, history: reads(turn, T, history, **{"full history": (turn + 1) * T}), "there are t - 1 events, and then this one"),
        (lambda turn, T, history: reads(turn, T, history, window=None), "window is missing"),
        (lambda turn, T, history: reads(turn, T, history, **{"no history": 7 * T}), "no history reads"),
    ],
)
def test_check_of_the_tokens(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_read"], answer)


def ends(one, other, *, wide=False, crossed=True, centre=True, way=1, swap=False):
    (p, pl, ph), (q, ql, qh) = one, other
    if wide:
        return pl - qh, ph - ql
    low_arm, high_arm = (qh - q, q - ql) if crossed else (q - ql, qh - q)
    down, up = math.hypot(p - pl, low_arm), math.hypot(ph - p, high_arm)
    low, high = (p - q if centre else 0) - down, (p - q if centre else 0) + up
    low, high = (low, high) if way == 1 else (-high, -low)
    return (high, low) if swap else (low, high)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda one, other: None, "no answer yet"),
        (ends, "right"),
        (lambda one, other: ends(one, other, wide=True), "too wide"),
        (lambda one, other: (one[1] - other[1], one[2] - other[2]), "low minus low"),
        (lambda one, other: ends(one, other, crossed=False), "crossed arms"),
        (lambda one, other: ends(one, other, swap=True), "changed places"),
        (lambda one, other: ends(one, other, way=-1), "second minus the first"),
        (lambda one, other: ends(one, other, centre=False), "around 0"),
        (lambda one, other: (0.0, 1.0), "expected"),
    ],
)
def test_check_of_the_difference(checks, capsys, answer, says):
    assert says in verdict(capsys, checks["check_difference"], answer)


def test_published_solutions_pass(checks, capsys):
    for function, check in (("words_needed", "check_words"), ("tokens_at", "check_read"), ("difference_of", "check_difference")):
        solved = run([published(CHAPTER, function)], math=math)
        assert verdict(capsys, checks[check], solved[function]) == "right\n"
    assert "perplexities = (8, 4)" in cells(CHAPTER)["solution-1"]
