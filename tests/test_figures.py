"""Figures show the rows they are given, can be read without colour, and fit a phone."""

import itertools

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from rxt_lite.figures import (  # noqa: E402
    ARMS,
    WORK,
    arm_style,
    attention_map,
    cost_totals,
    gate_histogram,
    in_words,
    latency_by_turn,
    loss_curve,
    probe_accuracy,
    recall_by_distance,
    shares,
    slot_history,
    slots_over_time,
    spread,
    survival,
    task_matrix,
)


def row(arm, seen, recall, half=0.05):
    return {"arm": arm, "seen": seen, "recall": recall, "low": recall - half, "high": recall + half, "n": 100, "seed": 0}


# Four of the six arms end within two hundredths of each other, as they do for a trained model.
LEVELS = {"memory_on": 0.9, "memory_reset": 0.1, "memory_swapped": 0.09, "last_event_only": 0.1, "full_history": 0.97, "chance": 0.1}
ROWS = [row(arm, seen, recall, half=0.0 if arm == "chance" else 0.03) for arm, recall in LEVELS.items() for seen in range(1, 9)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lines_by_name(axes):
    return {line.get_label(): line for line in axes.lines}


def boxes(axes):
    """Label -> its box in pixels, after drawing."""
    axes.figure.canvas.draw()
    return {text.get_text(): Text.get_window_extent(text) for text in axes.texts if not text.get_gid()}  # of the words, without their line


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


# ------------------------------------------------------------------------------------------------ recall by distance
@pytest.mark.parametrize("arms", [ARMS, WORK], ids=["recall", "work"])
def test_each_arm_is_told_apart_without_colour(arms):
    known = [arm_style(arm) for arm in arms]
    for position in (0, 1):  # name, colour
        assert len({style[position] for style in known}) == len(known)
    assert len({(marker, str(dash)) for _, _, marker, dash in known}) == len(known)
    unknown = [arm_style(arm, place) for place, arm in enumerate(("without_gate", "without_names"))]
    assert len({style[2] for style in [*known, *unknown]}) == len(known) + len(unknown)


@pytest.mark.parametrize("arm", [*ARMS, *WORK])
def test_names_can_be_read_on_paper(arm):
    contrast = 1.05 / (luminance(arm_style(arm)[1]) + 0.05)
    assert contrast >= 4.5, "WCAG AA for text"


def test_lines_go_through_the_rows_in_the_order_of_distance():
    axes = recall_by_distance([row("memory_on", 3, 0.5), row("memory_on", 1, 0.9), row("memory_on", 2, 0.7)])
    line = lines_by_name(axes)["memory on"]
    assert list(line.get_ydata()) == [0.9, 0.7, 0.5]
    assert list(line.get_xdata()) == [1, 2, 3]


def test_bars_reach_from_low_to_high_and_chance_has_none():
    axes = recall_by_distance(ROWS)
    assert len(axes.collections) == len(ARMS) - 1
    for bars, arm in zip(axes.collections, ("memory_on", "memory_reset")):
        for segment, wanted in zip(bars.get_segments(), (r for r in ROWS if r["arm"] == arm)):
            assert [y for _, y in segment] == pytest.approx([wanted["low"], wanted["high"]])


def test_each_line_has_its_name_beside_it_and_no_two_names_touch():
    axes = recall_by_distance(ROWS)
    labels = boxes(axes)
    assert set(labels) == {name for name, *_ in ARMS.values()}
    assert [(a, b) for a, b in itertools.combinations(labels, 2) if labels[a].overlaps(labels[b])] == []
    assert all(axes.figure.bbox.contains(box.x0, box.y0) and axes.figure.bbox.contains(box.x1, box.y1) for box in labels.values())


def test_letters_are_large_enough_on_a_phone():
    """A page of 375 pixels leaves about 340 for the picture, which is drawn at 100 dots an inch or less."""
    axes = recall_by_distance(ROWS)
    width = 100 * axes.figure.get_size_inches()[0]
    for text in (*axes.texts, axes.xaxis.label, *axes.get_xticklabels()):
        assert text.get_fontsize() * 100 / 72 * 340 / width >= 10


def test_paper_is_opaque_so_that_a_dark_page_does_not_shine_through():
    axes = recall_by_distance(ROWS)
    assert axes.get_facecolor()[3] == axes.figure.get_facecolor()[3] == 1


def test_figures_draw_into_the_axes_they_are_given():
    axes = plt.subplots()[1]
    assert recall_by_distance(ROWS, axes) is shares(ROWS[:1], axes) is axes
    assert loss_curve([{"step": 0, "loss": 1.0}], (axes := plt.subplots()[1])) is axes


@pytest.mark.parametrize(
    "heights", [[0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.12], [0.0, 0.0, 0.0], [1.0, 1.0, 0.99], [0.5], [0.2, 0.6, 0.4]], ids=str
)
def test_labels_are_moved_apart_no_further_than_they_must(heights):
    placed = spread(heights, gap=0.1)
    assert all(0 <= p <= 1 for p in placed)
    for i, j in itertools.combinations(range(len(heights)), 2):
        assert abs(placed[i] - placed[j]) >= 0.1 - 1e-9
        assert heights[i] == heights[j] or (heights[i] < heights[j]) == (placed[i] < placed[j])
    alone = [i for i, h in enumerate(heights) if all(abs(h - other) >= 0.2 for j, other in enumerate(heights) if j != i)]
    assert all(placed[i] == pytest.approx(heights[i]) for i in alone)


def test_in_words_says_what_the_figure_shows():
    words = in_words([row("memory_on", 1, 0.9), row("memory_on", 2, 0.95), row("memory_on", 3, 0.8), row("chance", 1, 0.1, half=0)])
    first, second = words.splitlines()
    assert first == "memory on: 0.90 at distance 1, 0.80 at 3; lowest 0.80 at 3, highest 0.95 at 2; intervals at most ±0.05"
    assert second == "chance: 0.10 at distance 1"


# ------------------------------------------------------------------------------------------------ loss, shares
LOSSES = [{"step": step, "loss": 2.0 if step % 2 else 4.0} for step in range(100)]


def test_loss_curve_shows_every_step_and_a_running_mean():
    axes = loss_curve(LOSSES, window=10)
    raw, mean = axes.lines
    assert axes.get_yscale() == "log"
    assert list(raw.get_ydata()) == [r["loss"] for r in LOSSES]
    assert mean.get_ydata()[0] == 4.0 and list(mean.get_ydata()[10:]) == pytest.approx([3.0] * 90)


@pytest.mark.parametrize("second, lines", [(40, 3), (400, 2)])
def test_a_lesson_is_marked_where_training_has_reached_it(second, lines):
    axes = loss_curve(LOSSES, lessons=((0, "easy"), (second, "base")))
    assert len(axes.lines) == lines
    assert [text.get_text() for text in axes.texts] == (["easy", "base"] if lines == 3 else ["easy"])


def test_levels_are_drawn_where_they_hold_and_can_be_drawn():
    """A loss of zero has no place on a logarithmic axis, and a lesson that has not begun has no level yet."""
    levels = ((0, 40, 1.0, "a"), (0, 40, 0.0, "b"), (40, 500, 2.5, "c"), (400, 500, 3.0, "d"))
    axes = loss_curve(LOSSES, levels=levels)
    assert [text.get_text() for text in axes.texts] == ["a", "c"]
    assert [[tuple(point) for point in c.get_segments()[0]] for c in axes.collections] == [[(0, 1.0), (40, 1.0)], [(40, 2.5), (99, 2.5)]]


def test_shares_come_from_top_to_bottom_with_their_numbers():
    axes = shares([row("memory_on", 1, 0.9), row("without layer 1", 1, 0.25)])
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["memory on", "without layer 1"]
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.25"]
    assert axes.yaxis_inverted()


# ------------------------------------------------------------------------------------------------ cost, latency
POWERS = {"rxt_answer": 1.0, "rxt_update": 1.01, "rxt": 1.02, "reread": 2.0, "prefix_cached": 1.03}  # four lines end together
TOTALS = [{"arm": arm, "turns": n, "tokens": 20 * n**p, "macs": n, "exponent_tokens": p, "exponent_macs": 1.0}
          for n in (1, 10, 100) for arm, p in POWERS.items()]
TIMES = [{"arm": arm, "turn": turn, "median_ms": 5.0 * turn ** (p - 1), "low_ms": 4.0, "high_ms": 400.0, "n": 9}
         for turn in (1, 8, 64) for arm, p in POWERS.items() if arm != "rxt"]


def assert_names_stand_apart_inside(axes, names):
    labels = boxes(axes)
    assert set(labels) == set(names)
    assert [(a, b) for a, b in itertools.combinations(labels, 2) if labels[a].overlaps(labels[b])] == []
    assert all(axes.figure.bbox.contains(box.x0, box.y0) and axes.figure.bbox.contains(box.x1, box.y1) for box in labels.values())


@pytest.mark.parametrize("of", ["tokens", "macs"])
def test_totals_are_lines_whose_names_say_the_power(of):
    axes = cost_totals(TOTALS, of=of)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert list(lines_by_name(axes)["reread"].get_ydata()) == [row[of] for row in TOTALS if row["arm"] == "reread"]
    power = {arm: p if of == "tokens" else 1.0 for arm, p in POWERS.items()}
    assert_names_stand_apart_inside(axes, [f"{arm_style(arm)[0]}, n^{p:.2f}" for arm, p in power.items()])


def test_a_name_stands_level_with_the_end_of_its_line():
    axes = cost_totals(TOTALS)
    axes.figure.canvas.draw()
    end = axes.transData.transform((100, 200_000.0))[1]
    box = boxes(axes)["reread, n^2.00"]
    assert box.y0 <= end <= box.y1


def test_latencies_have_a_bar_from_quartile_to_quartile():
    axes = latency_by_turn(TIMES)
    assert list(lines_by_name(axes)["RxT answer"].get_ydata()) == [5.0, 5.0, 5.0]
    assert all([y for _, y in segment] == [4.0, 400.0] for bars in axes.collections for segment in bars.get_segments())
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8", "64"]
    assert_names_stand_apart_inside(axes, [name for name, *_ in (WORK[arm] for arm in POWERS if arm != "rxt")])


# ------------------------------------------------------------------------------------------------ slots
LIVES = [{"of": of, "arm": "memory_on", "age": age, "alive": alive, "low": alive - 0.1, "high": alive,
          "at_risk": 9 - 4 * (age - 1), "censored": 4}
         for of, curve in (("fact held", (1.0, 0.9)), ("fact answered", (1.0, 0.5))) for age, alive in enumerate(curve, start=1)]
WEIGHTS = [0.1, 0.7, 0.2], [0.5, 0.2, 0.3]  # of two slots over three tokens
TRACE = [{"event": event, "slot": slot, "gate": gate, "cosine": 1 - gate, "written": gate > 0.5, "tokens": ["[A]", "red", "."],
          "write": weights, "read": weights[::-1]}
         for event, gates in enumerate(((0.1, 0.9), (0.2, 0.3))) for slot, (gate, weights) in enumerate(zip(gates, WEIGHTS))]
PROBES = [{"attribute": name, "arm": arm, "accuracy": share, "low": share - 0.02, "high": share + 0.02, "n": 99, "options": 8}
          for name in ("colour", "pet") for arm, share in (("slots", 0.9), ("shuffled_labels", 0.12), ("memory_reset", 0.13))]


def test_survival_goes_down_in_steps_from_all_alive():
    axes = survival(LIVES)
    line = lines_by_name(axes)["fact answered"]
    assert list(line.get_xdata()) == [0, 1, 2] and list(line.get_ydata()) == [1.0, 1.0, 0.5] and line.get_drawstyle() == "steps-post"
    curves = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert len({line.get_marker() for line in curves}) == len(curves) == len(axes.collections) == 2
    assert_names_stand_apart_inside(axes, ["fact held", "fact answered"])


def test_survival_marks_what_was_last_seen_alive_and_counts_who_is_at_risk():
    rows = [{"of": "fact", "age": age, "alive": alive, "low": alive, "high": alive, "at_risk": n, "censored": censored}
            for age, alive, n, censored in ((1, 0.8, 5, 0), (2, 0.6, 4, 1), (4, 0.3, 2, 1))]
    axes = survival([*rows, {**rows[0], "of": "noise"}])
    ticks = [line for line in axes.lines if line.get_marker() == "|"]
    assert [list(zip(*line.get_data())) for line in ticks] == [[(2, 0.6), (4, 0.3)]], "ticks only where something was censored"
    table = [text for text in axes.texts if text.get_gid() == "at risk"][1:]
    shown = {(text.get_color(), text.xy[0]): text.get_text() for text in table}
    fact, noise = dict.fromkeys(text.get_color() for text in table)
    assert [shown[fact, age] for age in (0, 1, 2, 3, 4)] == ["5", "5", "4", "2", "2"], "the next age with rows, as nothing happened before"
    assert [shown[noise, age] for age in (0, 1, 2)] == ["5", "5", "0"], "nobody is left"
    axes.figure.canvas.draw()
    drawn = [text.get_window_extent() for text in table]
    assert all(axes.figure.bbox.contains(box.x0, box.y0) for box in drawn)
    assert [a for a, b in itertools.combinations(drawn, 2) if a.overlaps(b)] == []


@pytest.mark.parametrize("of, rings", [("write", [(1, 0), (0, 1)]), ("read", [(0, 1), (1, 0), (2, 1)])])
def test_a_ring_marks_the_largest_weight_of_whoever_attends(of, rings):
    """The slots choose among tokens when they are written, the tokens among slots when they read."""
    axes = attention_map(TRACE[:2], of=of)
    assert axes.images[0].get_array().tolist() == [row[of] for row in TRACE[:2]]
    assert list(zip(*axes.lines[0].get_data())) == rings
    assert [label.get_text() for label in axes.get_xticklabels()] == ["[A]", "red", "."]


def test_the_history_of_slots_marks_what_was_written():
    axes = slot_history(TRACE)
    assert axes.images[0].get_array().tolist() == [[0.1, 0.2], [0.9, 0.3]], "slots down, events across"
    assert list(zip(*axes.lines[0].get_data())) == [(0, 1)]
    assert not slot_history([{**row, "written": False} for row in TRACE]).lines


WRITES = {(0, 2): 0.9, (1, 0): 0.4, (2, 0): 1.0, (3, 2): 0.8}  # (event, slot): slot 2 is written first, then 0, 1 never
OVER_TIME = [{"event": n, "slot": s, "head": h, "kind": "fact" if n == 2 else "noise", "write": WRITES.get((n, s), 0.0) * (h == 0 or n < 3),
              "read": 0.25 + 0.25 * (s == 1)} for h in (0, 1) for n in range(4) for s in range(3)]


def test_slots_over_time_have_a_panel_for_each_head_and_stand_in_the_order_of_their_first_write():
    top, bottom = slots_over_time(OVER_TIME)
    assert [label.get_text() for label in top.get_yticklabels()] == ["2", "0", "1"]
    assert top.images[0].get_array().tolist() == [[0.9, 0, 0, 0.8], [0, 0.4, 1.0, 0], [0, 0, 0, 0]]
    assert top.images[0].get_clim() == bottom.images[0].get_clim() == (0, 1), "panels can be compared"
    marks = lines_by_name(top)
    assert list(zip(*marks["first write"].get_data())) == [(0, 0), (2, 1)], "0.4 of a slot is no write"
    assert list(zip(*marks["written over"].get_data())) == [(3, 0)] and "written over" not in lines_by_name(bottom)
    assert list(marks["fact"].get_xdata()) == [2] and list(marks["noise"].get_xdata()) == [0, 1, 3]
    assert len({line.get_marker() for line in marks.values()}) == len(marks) == 4


def test_slots_over_time_show_reading_and_need_neither_heads_nor_kinds():
    rows = [{key: row[key] for key in ("event", "slot", "write", "read")} for row in OVER_TIME if row["head"] == 0]
    (only,) = slots_over_time(rows, of="read")
    assert only.images[0].get_array().tolist() == [[0.25] * 4, [0.25] * 4, [0.5] * 4] and only.get_xlabel() == "event"
    axes = plt.subplots()[1]
    assert slots_over_time(rows, [axes]) == [axes] and set(lines_by_name(axes)) == {"first write", "written over"}


def test_a_histogram_of_gates_says_how_many_have_not_decided():
    shares = {"fact": {19: 0.9, 17: 0.06, 2: 0.04}, "noise": {0: 1.0}}
    rows = [{"of": of, "low": n / 20, "high": (n + 1) / 20, "share": share.get(n, 0.0), "n": 50} for of, share in shares.items()
            for n in range(20)]
    axes = gate_histogram(rows)
    fact, noise = axes.patches
    assert fact.get_label() == "fact, 50 gates, 10.0% undecided" and noise.get_label() == "noise, 50 gates, 0.0% undecided"
    assert fact.get_data().values[[2, 17, 19]].tolist() == [0.04, 0.06, 0.9] and list(fact.get_data().edges[:2]) == [0.0, 0.05]
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] < 1 / 50, "one gate of fifty can be seen"
    assert fact.get_hatch() != noise.get_hatch()


def test_probes_stand_beside_their_controls_and_chance():
    axes = probe_accuracy(PROBES)
    lines = lines_by_name(axes)
    assert list(lines) == ["slots", "shuffled labels", "memory reset", "chance"]
    assert list(lines["slots"].get_xdata()) == [0.9, 0.9] and list(lines["chance"].get_xdata()) == [1 / 8, 1 / 8]
    assert len({line.get_marker() for line in axes.lines}) == 4


def test_a_task_matrix_has_its_numbers_and_frames_what_was_just_learned():
    R = [[0.9, 0.1, 0.0], [0.47, 1.0, 0.48]]  # two of three tasks have been learned
    axes = task_matrix([{"after": i, "task": j, "accuracy": share} for i, row in enumerate(R) for j, share in enumerate(row)])
    assert axes.images[0].get_array().tolist() == R and axes.images[0].get_clim() == (0, 1)
    assert [(*text.xy, text.get_text()) for text in axes.texts[:4]] == [(0, 0, "0.90"), (1, 0, "0.10"), (2, 0, "0.00"), (0, 1, "0.47")]
    assert [tuple(round(part) for part in frame.get_xy()) for frame in axes.patches] == [(0, 0), (1, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2"]
    for text in axes.texts:  # can be read on its ground
        ground = axes.images[0].cmap(float(text.get_text()))[:3]
        dark, light = sorted((luminance(text.get_color()), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) > 4.5, text.get_text()


@pytest.mark.parametrize("draw", [recall_by_distance, loss_curve, shares, cost_totals, latency_by_turn, survival, attention_map,
                                  slot_history, probe_accuracy, slots_over_time, gate_histogram, task_matrix])
def test_no_rows_is_one_clear_error(draw):
    with pytest.raises(ValueError, match="no rows to draw; expected"):
        draw([])
