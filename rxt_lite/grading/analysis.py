"""What a class shows: how hard each question was and whether it tells the strong from the weak; and hints that are no verdicts."""

import ast
import re
import zlib
from itertools import combinations
from statistics import mean, pstdev

# Calls that an honest answer seldom needs. A hint to look at the notebook, nothing more.
SUSPICIOUS = (
    "__reduce__", "_exit", "_getframe", "_look", "ast_transformers", "builtins", "ctypes", "display_pub", "f_back", "fork", "get_ipython",
    "gc.get_objects", "importlib", "inspect", "kill", "linecache", "os.system", "probe", "settrace", "signal", "socket", "subprocess",
    "sys.modules", "rxt_lite.layers", "rxt_lite.models")
SHINGLE, KEPT = 8, 256
ALIKE = 0.8


def calls(sources: list[str]) -> list[str]:
    """Suspicious words that stand in the code, outside comments."""
    text = "\n".join(re.sub(r"#.*", "", source) for source in sources)
    return [word for word in SUSPICIOUS if re.search(rf"(?<![\w.]){re.escape(word)}\b|\.{re.escape(word)}\b", text)]


def shingles(sources: list[str]) -> list[int]:
    """Hashes of runs of syntax, names and numbers aside: the smallest 256 of them stand for the whole."""
    words = []
    for source in sources:
        try:
            words += [type(node).__name__ for node in ast.walk(ast.parse(source))]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            words += source.split()[:2000]
    runs = {zlib.crc32(" ".join(words[n:n + SHINGLE]).encode()) for n in range(max(0, len(words) - SHINGLE + 1))}
    return sorted(runs)[:KEPT]


def similar(rows: list[dict]) -> list[dict]:
    """Pairs of submissions whose code is alike beyond what the class shares."""
    common = {}
    for row in rows:
        for shingle in row["shingles"]:
            common[shingle] = common.get(shingle, 0) + 1
    rare = {row["student"]: {s for s in row["shingles"] if common[s] <= max(2, len(rows) // 10)} for row in rows}
    pairs = []
    for one, two in combinations(sorted(rare), 2):
        both = rare[one] & rare[two]
        if len(both) >= 20 and len(both) / len(rare[one] | rare[two]) >= ALIKE:
            pairs.append({"one": one, "two": two, "shared": round(len(both) / len(rare[one] | rare[two]), 3)})
    return pairs


def items(rows: list[dict]) -> list[dict]:
    """For every question its difficulty (mean share of the points) and discrimination (correlation with the rest of the score)."""
    read = [row for row in rows if row["status"] == "graded"]
    found = []
    for n, question in enumerate(read[0]["questions"] if read else ()):
        shares = [row["questions"][n]["points"] / question["max"] for row in read]
        rest = [row["score"] - row["questions"][n]["points"] for row in read]
        statuses = [row["questions"][n]["status"] for row in read]
        found.append({"question": question["question"], "title": question["title"], "max": question["max"], "students": len(read),
                      "difficulty": round(mean(shares), 4), "discrimination": correlation(shares, rest),
                      **{status: statuses.count(status) for status in ("pass", "fail", "error", "timeout", "killed", "missing")}})
    return found


def correlation(x: list[float], y: list[float]) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    if len(x) < 3 or pstdev(x) == 0 or pstdev(y) == 0:
        return None
    mean_x, mean_y = mean(x), mean(y)
    return round(mean((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / (pstdev(x) * pstdev(y)), 4)


def plot(found: list[dict], path) -> None:
    """Difficulty of every question as bars, discrimination as numbers beside them. The same bytes every time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.45 * len(found) + 1.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    names = [f"{item['question']}: {item['title']}" for item in found]
    axes.barh(names, [item["difficulty"] for item in found], color="#3b6ea8")
    for n, item in enumerate(found):
        r = "no spread" if item["discrimination"] is None else f"r = {item['discrimination']:.2f}"
        axes.text(1.02, n, r, va="center", transform=axes.get_yaxis_transform())
    axes.set(xlim=(0, 1), xlabel="mean share of the points (beside it: correlation with the rest of the score)")
    axes.invert_yaxis()
    with rc_context({"svg.hashsalt": "items"}):  # else the names of its parts are random
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})

