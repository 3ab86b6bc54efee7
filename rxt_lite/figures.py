"""Figures: rows or arrays come in, matplotlib Axes go out. Nothing is computed here that a table could not show.

Every line has a colour, a marker and a dash of its own and its name beside it, so that colour is never the
only sign. The shape and the letters are chosen for a screen 375 pixels wide.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

SIZE = (5.0, 4.2)  # inches: the letters of a wider figure would be too small on a phone
LETTERS = 11
PAPER, INK, SOFT = "white", "#1d2733", "#5b6770"

# Each arm as (name, colour, marker, dash); the colours stay apart for the colour-blind and on grey paper.
ARMS = {
    "memory_on": ("memory on", "#0b5394", "o", "-"),
    "full_history": ("full history", "#1d2733", "s", (0, (6, 2))),
    "last_event_only": ("last event only", "#a14a00", "^", (0, (4, 1, 1, 1))),
    "memory_reset": ("memory reset", "#a3195b", "v", (0, (3, 2))),
    "memory_swapped": ("memory swapped", "#00695c", "D", (0, (1, 1))),
    "chance": ("chance", "#5b6770", "", "-"),
}
OTHERS = [("#6a3d9a", "P"), ("#7a6200", "X"), ("#3d5a00", "*"), ("#b03030", "h")]


def arm_style(arm: str, place: int = 0) -> tuple[str, str, str, object]:
    """Name, colour, marker and dash of an arm; an arm we do not know gets the next free ones."""
    if arm in ARMS:
        return ARMS[arm]
    colour, marker = OTHERS[place % len(OTHERS)]
    return arm.replace("_", " "), colour, marker, "-"


def paper(axes: Axes | None) -> Axes:
    """The given axes, or new ones, without a frame to distract, opaque for pages in the dark."""
    if axes is None:
        axes = plt.subplots(figsize=SIZE, layout="constrained")[1]
    axes.figure.set_facecolor(PAPER)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=LETTERS, colors=INK)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set(fontsize=LETTERS, color=INK)
    return axes


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels apart: at least `gap` from each other, in the same order, between 0 and 1, as near as can be to `heights`.

    Least squares under an order is the pooling of neighbours that violate it (isotonic regression).
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups = []  # [sum of wanted bases, how many]: members of a group stand exactly `gap` apart
    for rank, i in enumerate(order):
        groups.append([heights[i] - rank * gap, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, n = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + n]
    top = 1 - gap * (len(heights) - 1)
    bases = [max(0.0, min(total / n, top)) for total, n in groups for _ in range(n)]
    placed = [0.0] * len(heights)
    for rank, i in enumerate(order):
        placed[i] = bases[rank] + rank * gap
    return placed


def recall_by_distance(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """Recall against `seen`, a line for each arm with its intervals: rows {"arm", "seen", "recall", "low", "high"}."""
    if not rows:
        raise ValueError('no rows to draw; expected {"arm", "seen", "recall", "low", "high"}, as recall_rows returns')
    axes = paper(axes)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    ends = []
    for place, arm in enumerate(arms):
        name, colour, marker, dash = arm_style(arm, place)
        of = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seen"])
        shift = 0.0 if arm == "chance" else 0.08 * (place - (len(arms) - 1) / 2)  # bars of one distance stand side by side
        x, y = [row["seen"] + shift for row in of], [row["recall"] for row in of]
        axes.plot(x, y, color=colour, marker=marker, linestyle=dash, linewidth=1.8, markersize=5.5, label=name, zorder=3)
        if any(row["high"] > row["low"] for row in of):
            axes.vlines(x, [row["low"] for row in of], [row["high"] for row in of], color=colour, linewidth=1.4, zorder=2)
        ends.append((x[-1], y[-1], name, colour))
    last = max(row["seen"] for row in rows)
    for (x, y, name, colour), height in zip(ends, spread([end[1] for end in ends], gap=0.075)):
        axes.annotate(name, (x, y), xytext=(last + 0.95, height), textcoords="data", va="center", color=colour, fontsize=LETTERS,
                      annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 3, "shrinkB": 4})
    axes.set(xlabel="turns since the value was last seen", ylabel="share of questions answered right",
             ylim=(-0.03, 1.03), xlim=(0.5, last + 0.6), xticks=sorted({row["seen"] for row in rows}))
    return axes


def loss_curve(rows: Sequence[dict], axes: Axes | None = None, *, lessons: Sequence[tuple[int, str]] = (),
               levels: Sequence[tuple[int, int, float, str]] = (), window: int = 20) -> Axes:
    """Loss by step on a logarithmic axis: every step thin, the mean of the last `window` thick. Rows {"step", "loss"}.

    lessons   (first step, name): a line where a later lesson begins
    levels    (first step, last step, loss, name): a loss worth comparing with, dashed; "" for no name
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"step", "loss"}, as fit returns')
    axes = paper(axes)
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    mean = [sum(losses[max(0, i + 1 - window) : i + 1]) / min(window, i + 1) for i in range(len(losses))]
    axes.semilogy(steps, losses, color="#0b5394", linewidth=0.6, alpha=0.35)
    axes.semilogy(steps, mean, color="#0b5394", linewidth=2)
    for first, last, loss, name in levels:
        if loss > 0 and first <= steps[-1]:
            axes.hlines(loss, first, min(last, steps[-1]), color="#a14a00", linestyle=(0, (4, 2)), linewidth=1.6)
            axes.annotate(name, (min(last, steps[-1]), loss), xytext=(0, -3), textcoords="offset points", ha="right", va="top",
                          color="#a14a00", fontsize=LETTERS - 1, path_effects=[withStroke(linewidth=3, foreground=PAPER)])
    for first, name in lessons:
        if first > steps[-1]:
            continue
        if first:
            axes.axvline(first, color=SOFT, linestyle=":", linewidth=1.4)
        axes.annotate(name, (first, 1.0), xycoords=("data", "axes fraction"), xytext=(5, -2), textcoords="offset points", va="top",
                      color=SOFT, fontsize=LETTERS - 1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set(xlabel="training step", ylabel="loss (nats per answer token)")
    axes.set_xlim(-0.02 * max(1, steps[-1]), None)
    return axes


def shares(rows: Sequence[dict], axes: Axes | None = None, *, xlabel: str = "share of questions answered right") -> Axes:
    """One share a line, with its interval and its number: rows {"arm", "recall", "low", "high"}, the first on top."""
    if not rows:
        raise ValueError('no rows to draw; expected {"arm", "recall", "low", "high"}')
    if axes is None:
        axes = plt.subplots(figsize=(SIZE[0], 1.1 + 0.42 * len(rows)), layout="constrained")[1]
    axes = paper(axes)
    for place, row in enumerate(rows):
        _, colour, marker, _ = arm_style(row["arm"], place)
        axes.hlines(place, row["low"], row["high"], color=colour, linewidth=2.2)
        axes.plot(row["recall"], place, color=colour, marker=marker or "|", markersize=8)
        axes.annotate(f"{row['recall']:.2f}", (1.06, place), va="center", color=colour, fontsize=LETTERS, annotation_clip=False)
    axes.set(xlabel=xlabel, xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)))
    axes.set_yticklabels([arm_style(row["arm"])[0] for row in rows])
    axes.grid(axis="x", color="#dde3e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def in_words(rows: Sequence[dict]) -> str:
    """What `recall_by_distance` shows, a sentence an arm, for readers who do not see it."""
    sentences = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        of = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seen"])
        low, high = (choose(of, key=lambda row: row["recall"]) for choose in (min, max))
        sentence = f"{arm_style(arm)[0]}: {of[0]['recall']:.2f} at distance {of[0]['seen']}"
        if len(of) > 1:
            sentence += f", {of[-1]['recall']:.2f} at {of[-1]['seen']}"
            sentence += f"; lowest {low['recall']:.2f} at {low['seen']}, highest {high['recall']:.2f} at {high['seen']}"
        widest = max((row["high"] - row["low"]) / 2 for row in of)
        sentences.append(sentence + (f"; intervals at most ±{math.ceil(round(100 * widest, 6)) / 100:.2f}" if widest else ""))
    return "\n".join(sentences)
