"""Labs and their grading on top of nbval: ask in the student's kernel, compare outside it.

    source.py      one instructor's notebook: text, answers, visible checks, hidden checks, points, known-wrong answers
    key.py         the grader's key: hidden checks with the outputs of the right answers
    check.py       key = 100 %, untouched release = 0 %, each wrong answer loses what it says, with its message
    submission.py  reading what students hand in, and which of its cells are answers
    jail, kernel   where their code runs, and how it is watched;  probe.py: what runs beside it
    plugin.py      nbval's notebook and cells, built from the key
    grade.py       a class: workers, a journal, resumption
    results, feedback, analysis    what comes out
"""
