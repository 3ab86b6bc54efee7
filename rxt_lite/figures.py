"""Figures: rows or arrays come in, matplotlib Axes go out. Nothing is computed here that a table could not show.

Every line has a colour, a marker and a dash of its own and its name beside it, so that colour is never the
only sign. The shape and the letters are chosen for a screen 375 pixels wide.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

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
# The same for the arms of what a conversation costs and how long it takes.
WORK = {
    "rxt_answer": ("RxT answer", "#0b5394", "o", "-"),
    "rxt_update": ("RxT update", "#00695c", "D", (0, (1, 1))),
    "rxt": ("RxT, both", "#a3195b", "v", (0, (3, 2))),
    "reread": ("reread", "#1d2733", "s", (0, (6, 2))),
    "prefix_cached": ("prefix cached", "#a14a00", "^", (0, (4, 1, 1, 1))),
}
OTHERS = [("#6a3d9a", "P"), ("#7a6200", "X"), ("#3d5a00", "*"), ("#b03030", "h")]


def arm_style(arm: str, place: int = 0) -> tuple[str, str, str, object]:
    """Name, colour, marker and dash of an arm; an arm we do not know gets the next free ones."""
    if arm in ARMS or arm in WORK:
        return ARMS.get(arm) or WORK[arm]
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


def pointer(colour: str) -> dict:
    """How the name of a line is written, with a thin stroke to where the line ends."""
    return {"va": "center", "color": colour, "fontsize": LETTERS, "annotation_clip": False,
            "arrowprops": {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 3, "shrinkB": 4}}


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
        axes.annotate(name, (x, y), xytext=(last + 0.95, height), textcoords="data", **pointer(colour))
    axes.set(xlabel="turns since the value was last seen", ylabel="share of questions answered right",
             ylim=(-0.03, 1.03), xlim=(0.5, last + 0.6), xticks=sorted({row["seen"] for row in rows}))
    return axes


def name_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]], gap: float = 0.085) -> None:
    """Write names to the right of the axes, level with where their lines end, none upon another: (x, y, name, colour)."""
    axes.get_xlim(), axes.get_ylim()  # limits are settled when somebody asks
    height = lambda x, y: axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]  # noqa: E731
    for (x, y, name, colour), at in zip(ends, spread([height(x, y) for x, y, *_ in ends], gap)):
        axes.annotate(name, (x, y), xytext=(1.05, at), textcoords="axes fraction", **pointer(colour))


def cost_totals(rows: Sequence[dict], axes: Axes | None = None, *, of: str = "tokens") -> Axes:
    """Totals of whole conversations against their turns, both logarithmic: a straight line is a power, and its name says which.

    Rows {"arm", "turns", "tokens" | "macs", "exponent_tokens" | "exponent_macs"} as total_rows returns, for several numbers of turns.
    """
    if not rows:
        raise ValueError(f'no rows to draw; expected {{"arm", "turns", "{of}", "exponent_{of}"}}, as total_rows returns')
    axes = paper(axes)
    ends = []
    for place, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        name, colour, marker, dash = arm_style(arm, place)
        line = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["turns"])
        x, y = [row["turns"] for row in line], [row[of] for row in line]
        axes.loglog(x, y, color=colour, marker=marker, linestyle=dash, linewidth=1.8, markersize=5.5, label=name)
        ends.append((x[-1], y[-1], f"{name}, n^{line[-1][f'exponent_{of}']:.2f}", colour))
    axes.set(xlabel="turns of the conversation (n)", ylabel={"tokens": "tokens run through a network", "macs": "multiply-adds"}[of])
    name_lines(axes, ends)
    return axes


def latency_by_turn(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """Milliseconds against the turn, both logarithmic, bars for quartiles: rows {"arm", "turn", "median_ms", "low_ms", "high_ms"}."""
    if not rows:
        raise ValueError('no rows to draw; expected {"arm", "turn", "median_ms", "low_ms", "high_ms"}, as latency_rows returns')
    axes = paper(axes)
    ends = []
    for place, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        name, colour, marker, dash = arm_style(arm, place)
        of = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["turn"])
        x, y = [row["turn"] for row in of], [row["median_ms"] for row in of]
        axes.loglog(x, y, color=colour, marker=marker, linestyle=dash, linewidth=1.8, markersize=5.5, label=name, zorder=3)
        axes.vlines(x, [row["low_ms"] for row in of], [row["high_ms"] for row in of], color=colour, linewidth=1.4, zorder=2)
        ends.append((x[-1], y[-1], name, colour))
    turns = sorted({row["turn"] for row in rows})
    axes.set(xlabel="turn of the conversation", ylabel="milliseconds", xticks=turns)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    name_lines(axes, ends)
    return axes


def survival(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """Kaplan-Meier curves as steps with their intervals: rows {"of", "age", "alive", "low", "high", "at_risk", "censored"} of one arm.

    A short upright tick stands where something was last seen alive (censored). The numbers below are how many were still seen and
    alive when an age came, one line a curve, with the curve's marker before it.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"of", "age", "alive", "low", "high", "at_risk", "censored"}, '
                         "as fact_rows and content_rows return")
    names = list(dict.fromkeys(row["of"] for row in rows))
    if axes is None:
        axes = plt.subplots(figsize=(SIZE[0], SIZE[1] + 0.2 * len(names)), layout="constrained")[1]
    axes = paper(axes)
    styles = [style for style in ARMS.values() if style[2]]  # colour, marker and dash; the names are those of the rows
    last, ends = max(row["age"] for row in rows), []
    axes.set(xlabel="age in events", ylabel="share still alive", ylim=(-0.03, 1.03), xlim=(0, last + 0.3))
    ticks = [int(tick) for tick in MaxNLocator(5, integer=True).tick_values(0, last) if 0 <= tick <= last]
    axes.set_xticks(ticks)
    below = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": LETTERS - 1, "annotation_clip": False}
    axes.annotate("seen and alive at this age", (0, 0), xycoords="axes fraction", xytext=(0, -46), **below | {"ha": "left"}, color=SOFT,
                  gid="at risk")
    for place, name in enumerate(names):
        _, colour, marker, dash = styles[place % len(styles)]
        of = sorted((row for row in rows if row["of"] == name), key=lambda row: row["age"])
        x, y = [0, *(row["age"] for row in of)], [1.0, *(row["alive"] for row in of)]
        axes.step(x, y, where="post", color=colour, marker=marker, linestyle=dash, linewidth=1.8, markersize=5.5, label=name, zorder=3,
                  markevery=max(1, len(x) // 8))
        censored = [(row["age"], row["alive"]) for row in of if row["censored"]]
        if censored:
            axes.plot(*zip(*censored), "|", color=colour, markersize=11, markeredgewidth=1.1, zorder=4)
        low, high = ([1.0, *(row[end] for row in of)] for end in ("low", "high"))
        axes.fill_between(x, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        line = -61 - 14 * place  # points below the axes
        axes.plot(-0.1, 0, marker, color=colour, markersize=5.5, clip_on=False, gid="at risk",
                  transform=axes.transAxes + ScaledTranslation(0, line / 72, axes.figure.dpi_scale_trans))
        for tick in ticks:
            seen = next((row["at_risk"] for row in of if row["age"] >= tick), 0)
            axes.annotate(str(seen), (tick, 0), xycoords=("data", "axes fraction"), xytext=(0, line), **below, color=colour, gid="at risk")
        ends.append((x[-1], y[-1], name, colour))
    name_lines(axes, ends)
    return axes


def attention_map(rows: Sequence[dict], axes: Axes | None = None, *, of: str = "write") -> Axes:
    """Slots against the tokens of one event: how each slot spreads its writing, or how much each token reads from it.

    Rows of one event and layer, {"slot", "tokens", "write" | "read"} as trace_rows returns; a ring marks the largest weight
    of each slot ("write") or of each token ("read"), so that the map can be read on grey paper.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"slot", "tokens", "write", "read"} of one event and layer, as trace_rows returns')
    tokens = rows[0]["tokens"]
    if axes is None:
        axes = plt.subplots(figsize=(SIZE[0] + 0.6, 1.6 + 0.19 * len(rows)), layout="constrained")[1]
    axes = paper(axes)
    weights = [row[of] for row in rows]  # S x T
    picture = axes.imshow(weights, cmap="cividis", vmin=0, aspect="auto", interpolation="nearest")
    if of == "write":
        rings = [(max(range(len(tokens)), key=lambda t: row[t]), s) for s, row in enumerate(weights)]
    else:
        rings = [(t, max(range(len(rows)), key=lambda s: weights[s][t])) for t in range(len(tokens))]
    axes.plot(*zip(*rings), "o", markerfacecolor="none", markeredgecolor="white", markersize=7, markeredgewidth=1.4)
    axes.set(xticks=range(len(tokens)), yticks=range(len(rows)), ylabel="slot")
    axes.set_xticklabels(tokens, rotation=60, ha="right", rotation_mode="anchor", fontsize=LETTERS - 1)
    axes.set_yticklabels([row["slot"] for row in rows], fontsize=LETTERS - 2)
    axes.figure.colorbar(picture, ax=axes, label={"write": "share of the slot's writing", "read": "share of the token's reading"}[of])
    return axes


def slot_history(rows: Sequence[dict], axes: Axes | None = None, *, of: str = "gate") -> Axes:
    """Slots of one layer against events, darker where `of` is larger: rows {"event", "slot", "gate" | "change" | "cosine" | "norm"}.

    A dot marks the slots that an event wrote.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"event", "slot", "gate", "cosine"} of one layer, as trace_rows returns')
    axes = paper(axes)
    value = {(row["slot"], row["event"]): row for row in rows}
    slots, events = (sorted({key[i] for key in value}) for i in (0, 1))
    picture = axes.imshow([[value[s, n][of] for n in events] for s in slots], cmap="cividis_r", aspect="auto", interpolation="nearest")
    marked = [(n, s) for (s, n), row in value.items() if row["written"]]
    if marked:
        axes.plot(*zip(*marked), "o", color="white", markeredgecolor=INK, markersize=6)
    axes.set(xlabel="event", ylabel="slot", xticks=events, yticks=slots)
    axes.figure.colorbar(picture, ax=axes, label=of)
    return axes


def slots_over_time(rows: Sequence[dict], axes: Sequence[Axes] | None = None, *, of: str = "write") -> list[Axes]:
    """Slots against events, a panel for each head, from 0 (dark) to 1 (bright): rows {"event", "slot", "write" | "read"}, with "head"
    where there are several and "kind" where events differ.

    Slots stand in the order in which they were first written. A dot marks a write, of more than half of a slot, into one that was
    not written before, a cross a write over something. Above the panels a strip says of what kind each event is.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"event", "slot", "write", "read"}, with "head" and "kind" where there are such')
    heads, events, slots = (sorted({row.get(key, 0) for row in rows}) for key in ("head", "event", "slot"))
    wrote = {s: sorted({row["event"] for row in rows if row["slot"] == s and row["write"] > 0.5}) for s in slots}
    slots.sort(key=lambda s: wrote[s][:1] or [math.inf])
    kinds = {row["event"]: row["kind"] for row in rows if "kind" in row}
    if axes is None:
        height = 1.5 + len(heads) * (0.35 + 0.24 * len(slots))
        axes = plt.subplots(len(heads), figsize=(SIZE[0] + 0.6, height), layout="constrained", squeeze=False, sharex=True)[1][:, 0]
    for head, panel in zip(heads, axes):
        paper(panel)
        value = {(row["slot"], row["event"]): row[of] for row in rows if row.get("head", 0) == head}
        picture = panel.imshow([[value[s, n] for n in events] for s in slots], cmap="cividis", vmin=0, vmax=1, aspect="auto",
                               interpolation="nearest", extent=(events[0] - 0.5, events[-1] + 0.5, len(slots) - 0.5, -0.5))
        mine = {(row["slot"], row["event"]) for row in rows if row.get("head", 0) == head and row["write"] > 0.5}
        for marker, size, over in (("o", 6, False), ("X", 7.5, True)):
            marked = [(n, y) for y, s in enumerate(slots) for n in events if (s, n) in mine and (n > wrote[s][0]) == over]
            if marked:
                panel.plot(*zip(*marked), marker, color="white", markeredgecolor=INK, markersize=size,
                           label="written over" if over else "first write")
        panel.set(ylabel="slot" if len(heads) == 1 else f"head {head}, slot", yticks=range(len(slots)))
        panel.set_yticklabels(slots)
    for marker, kind in zip(".vsD", sorted(set(kinds.values()), key=lambda kind: -list(kinds.values()).count(kind))):
        x = [n for n in events if kinds.get(n) == kind]
        axes[0].plot(x, [1.045] * len(x), marker, color=INK, markersize=5 if marker != "." else 3, clip_on=False, label=kind,
                     transform=axes[0].get_xaxis_transform())
    if kinds:
        strip = [line for line in axes[0].lines if line.get_label() in kinds.values()]
        axes[0].figure.legend(handles=strip, loc="outside upper left", ncols=4, frameon=False, fontsize=LETTERS - 1)
    axes[-1].set_xlabel("event")
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    label = {"write": "part of the slot that is written", "read": "share of the reading"}[of]
    axes[0].figure.colorbar(picture, ax=list(axes), label=label)
    return list(axes)


def gate_histogram(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """How often a gate lies where, logarithmic, an outline for each kind of event: rows {"of", "low", "high", "share", "n"}.

    Beside the name stands the share of gates that have not decided: that lie between the dotted lines at 0.1 and 0.9.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"of", "low", "high", "share", "n"}, as gate_rows returns')
    axes = paper(axes)
    styles, least = [style for style in ARMS.values() if style[2]], min(1 / row["n"] for row in rows if row["n"])
    for place, name in enumerate(dict.fromkeys(row["of"] for row in rows)):
        _, colour, _, dash = styles[place % len(styles)]
        of = sorted((row for row in rows if row["of"] == name), key=lambda row: row["low"])
        between = sum(row["share"] for row in of if row["low"] > 0.1 - 1e-9 and row["high"] < 0.9 + 1e-9)
        axes.stairs([row["share"] for row in of], [of[0]["low"], *(row["high"] for row in of)], baseline=least / 2, color=colour,
                    linestyle=dash, linewidth=1.8, fill=False, hatch=("//", "..", "\\\\")[place % 3],
                    label=f"{name}, {of[0]['n']} gates, {between:.1%} undecided")
    for edge in (0.1, 0.9):
        axes.axvline(edge, color=SOFT, linestyle=":", linewidth=1.2)
    axes.set(xlabel="gate", ylabel="share of the gates (log)", yscale="log", xlim=(-0.02, 1.02), ylim=(least / 2, 1.5))
    axes.figure.legend(loc="outside upper left", fontsize=LETTERS - 1, frameon=False)
    return axes


def probe_accuracy(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """What a linear probe reads off one layer, a line for each attribute.

    Rows {"attribute", "arm", "accuracy", "low", "high", "options"} as probe_rows returns.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"attribute", "arm", "accuracy", "low", "high", "options"} of one layer')
    attributes, arms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("attribute", "arm"))
    styles = [style for style in ARMS.values() if style[2]]
    if axes is None:
        axes = plt.subplots(figsize=(SIZE[0], 1.5 + 0.5 * len(attributes)), layout="constrained")[1]
    axes = paper(axes)
    for place, arm in enumerate(arms):
        _, colour, marker, _ = styles[place % len(styles)]
        of = [row for row in rows if row["arm"] == arm]
        y = [attributes.index(row["attribute"]) + 0.2 * (place - (len(arms) - 1) / 2) for row in of]
        axes.hlines(y, [row["low"] for row in of], [row["high"] for row in of], color=colour, linewidth=2)
        axes.plot([row["accuracy"] for row in of], y, marker, color=colour, markersize=6.5, label=arm.replace("_", " "))
    chance = {row["attribute"]: 1 / row["options"] for row in rows}
    axes.plot([chance[a] for a in attributes], range(len(attributes)), "|", color=INK, markersize=18, label="chance")
    axes.set(xlabel="share of values read off rightly", xlim=(-0.02, 1.02), ylim=(len(attributes) - 0.5, -0.5),
             yticks=range(len(attributes)))
    axes.set_yticklabels(attributes)
    axes.figure.legend(loc="outside upper left", ncols=2, fontsize=LETTERS - 1, frameon=False)
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


def task_matrix(rows: Sequence[dict], axes: Axes | None = None) -> Axes:
    """Accuracy on every task (across) after learning each (down), with its number: rows {"after", "task", "accuracy"}, one for each pair.

    A frame marks the task that has just been learned: left of it stands what is remembered, right of it what was never seen.
    """
    if not rows:
        raise ValueError('no rows to draw; expected {"after", "task", "accuracy"}, as continual_rows returns for one arm and seed')
    value = {(row["after"], row["task"]): row["accuracy"] for row in rows}
    learned, tasks = (sorted({pair[place] for pair in value}) for place in (0, 1))
    axes = paper(axes)
    axes.imshow([[value[after, task] for task in tasks] for after in learned], cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    for y, after in enumerate(learned):
        for x, task in enumerate(tasks):
            share = value[after, task]
            ink = "black" if share > 0.475 else "white"
            axes.annotate(f"{share:.2f}", (x, y), ha="center", va="center", fontsize=LETTERS - 1, color=ink)
        if after in tasks:
            axes.add_patch(Rectangle((tasks.index(after) - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="#a14a00", linewidth=2.2))
    axes.set(xlabel="tested on task", ylabel="after learning task", xticks=range(len(tasks)), yticks=range(len(learned)))
    axes.set_xticklabels([task + 1 for task in tasks])
    axes.set_yticklabels([after + 1 for after in learned])
    return axes
