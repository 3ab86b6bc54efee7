"""The page a student gets: scores, what each question lost and a hint from the key. Nobody else's name, no hidden source.

Every text that may be the student's is escaped; nothing a student's code said is shown at all, since it may have read the checks.
"""

from html import escape

from rxt_lite.grading.source import Lab

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid; padding-left: .8rem; }
"""

MEANING = {
    "pass": "✓ right",
    "fail": "✗ not right",
    "error": "✗ raised an error",
    "timeout": "✗ took too long",
    "killed": "✗ stopped by the grader",
    "missing": "– not answered",
    "manual": "… is graded by hand",
    "graded by hand": "graded by hand",
}
LOST = {"time": "It did not finish within the time that a cell has.", "time of the notebook": "The time of the whole notebook was over.",
        "died": "Python itself ended while it ran.", "output": "It printed too much.", "memory": "It used too much memory.",
        "processes": "It started too many processes.", "files": "It wrote where nothing may be written.",
        "silent": "It left Python unable to answer."}


def page(row: dict, key: Lab) -> str:
    title = f"Feedback: {escape(key.about['title'])}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in row["notes"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{escape(row["student"])}: <strong>{row["score"]:g} of {row["max"]:g} points</strong>{still_open(row)}</p>
{f"<h2>About the file</h2><ul>{notes}</ul>" if notes else ""}
<h2>Questions</h2>
<table>
<caption>Points for each question</caption>
<thead><tr><th scope="col">Question</th><th scope="col">Result</th><th scope="col">Points</th></tr></thead>
<tbody>
{"".join(map(table_row, row["questions"]))}</tbody>
</table>
{"".join(map(details, row["questions"]))}</main>
</body>
</html>
"""


def still_open(row: dict) -> str:
    points = sum(question["max"] for question in row["questions"] if question["status"] == "manual")
    return f", and {points:g} more that are given by hand" if points else ""


def table_row(question: dict) -> str:
    return (f'<tr><th scope="row">{escape(question["question"])}: {escape(question["title"])}</th><td>{meaning(question)}</td>'
            f'<td class="number">{question["points"]:g} of {question["max"]:g}</td></tr>\n')


def meaning(question: dict) -> str:
    partly = 0 < question["points"] < question["max"] and question["status"] != "graded by hand"
    return ("partly right; the rest " if partly else "") + MEANING[question["status"]]


def details(question: dict) -> str:
    """What to look at, for a question that lost points; the student's own text and the comment, for an open one."""
    said = list(dict.fromkeys(filter(None, (sentence(check) for check in question["checks"]))))
    parts = [f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in said)}</ul>"] if said else []
    if question.get("text"):
        parts.append(f"<p>Your answer:</p><pre>{escape(question['text'])}</pre>")
    if question.get("comment"):
        parts.append(f"<p>Comment: {escape(question['comment'])}</p>")
    if not parts:
        return ""
    return f"<h3>{escape(question['question'])}: {escape(question['title'])}</h3>\n{''.join(parts)}\n"


def sentence(check: dict) -> str:
    """Why a check gave no points, then the key's message."""
    why = ""
    if check["status"] == "error":
        why = f"It raised {check['error']}. "
    elif check["status"] in ("timeout", "killed"):
        why = LOST.get(check["error"], "") + " "
    return (why + check["message"]).strip()
