"""Two probes, the expected and the student's, compared in the grader's process. They are JSON: nothing runs, nothing is unpickled."""

import json
import math

from rxt_lite.grading.probe import MIME

RTOL, ATOL = 1e-4, 1e-6
UNREADABLE = {"no": "JSON"}


def probes(outputs: list) -> dict:
    """{name: value} of what a check cell displayed; of one name, the last counts."""
    found = {}
    for output in outputs:
        data = output.get("data", {}).get(MIME)
        if isinstance(data, dict) and isinstance(data.get("name"), str) and isinstance(data.get("json"), str):
            try:
                found[data["name"]] = json.loads(data["json"])
            except (ValueError, RecursionError):
                found[data["name"]] = UNREADABLE
    return found


def agrees(expected, got, *, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Equal in structure; floats within the tolerances, whole numbers and text exactly.

    float32 against float64, a list against a tensor or a tuple, 3.0 against 3 are no difference.
    """
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(
            agrees(e, g, rtol=rtol, atol=atol) for e, g in zip(expected, got))
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(
            agrees(expected[key], got[key], rtol=rtol, atol=atol) for key in expected)
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return close(expected, got, rtol, atol)
    return type(expected) is type(got) and expected == got


def close(expected: float, got: float, rtol: float, atol: float) -> bool:
    try:
        expected_float, got_float = float(expected), float(got)
    except OverflowError:
        return expected == got
    if math.isnan(expected_float) or math.isinf(expected_float):
        return repr(expected_float) == repr(got_float)
    if isinstance(expected, int):
        return expected == got
    return abs(expected_float - got_float) <= atol + rtol * abs(expected_float)


def same_probes(expected: dict, got: dict, **tolerance) -> bool:
    """Every expected probe is there and agrees; others do not matter."""
    return all(name in got and agrees(value, got[name], **tolerance) for name, value in expected.items())


def tolerance(about: dict) -> dict:
    return {"rtol": about.get("rtol", RTOL), "atol": about.get("atol", ATOL)}
