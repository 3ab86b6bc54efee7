"""`rxt-lite lab release | key | check` and `rxt-lite grade`: thin, as all commands."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

lab_app = typer.Typer(no_args_is_help=True, help="Labs: from one source to the student's notebook and the grader's key.")
Source = Annotated[Path, typer.Argument(help="the lab's source, labs/source/NAME.ipynb")]


@lab_app.command("release")
def release_command(source: Source, out: Annotated[Path, typer.Option(help="folder for NAME.ipynb")]) -> None:
    """Write the student's notebook: gaps instead of solutions, no hidden check."""
    from rxt_lite.cli import clear_errors
    from rxt_lite.grading.results import write
    from rxt_lite.grading.source import read_lab, release, to_text

    with clear_errors():
        lab = read_lab(source)
        write(out / f"{lab.name}.ipynb", to_text(release(lab)))
        print(out / f"{lab.name}.ipynb")


@lab_app.command("key")
def key_command(
    source: Source,
    out: Annotated[Path, typer.Option(help="file for the key; keep it out of the repository")],
    secret: Annotated[Path, typer.Option(help="file with the course secret: 16 characters or more, the same for the whole course")],
) -> None:
    """Write the grader's key: hidden checks with inputs from the course secret, and their expected outputs."""
    from rxt_lite.cli import clear_errors
    from rxt_lite.grading.key import make_key
    from rxt_lite.grading.results import write
    from rxt_lite.grading.source import read_lab, to_text

    with clear_errors():
        if not secret.exists():
            how = f'python -c "import secrets; print(secrets.token_hex())" > {shlex.quote(str(secret))}'
            raise FileNotFoundError(f"there is no file {secret} with the course secret; make one, once for the course, and keep it: {how}")
        write(out, to_text(make_key(read_lab(source), secret.read_text().strip())))
        out.chmod(0o600)
        print(out)


@lab_app.command("check")
def check_command(
    sources: Annotated[list[Path], typer.Argument(help="sources of labs")],
    released: Annotated[Path | None, typer.Option(help="folder whose student notebooks must be what the sources generate")] = None,
) -> None:
    """Prove that the right answers earn all, a release nothing, and each known-wrong answer loses what it should."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rxt_lite.cli import clear_errors
    from rxt_lite.grading.check import check_lab, differs
    from rxt_lite.grading.source import read_lab

    failed = False
    with clear_errors(), ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        labs = [read_lab(source) for source in sources]
        for source, lab, problems in zip(sources, labs, pool.map(check_lab, labs)):
            if released is not None:
                problems += filter(None, [differs(lab, released / f"{lab.name}.ipynb")])
            failed |= bool(problems)
            for problem in problems:
                print(f"{source}: {problem}", file=sys.stderr)
            verdict, wrong = "FAILED" if problems else "ok", len(lab.cells("wrong"))
            print(f"{source}: {verdict}, {len(lab.questions)} questions, {lab.points:g} points, {wrong} wrong answers")
    raise typer.Exit(1 if failed else 0)


def grade_command(
    key: Annotated[Path, typer.Argument(help="the key, from `rxt-lite lab key`")],
    submissions: Annotated[Path, typer.Argument(help="folder or zip of notebooks, or one notebook")],
    out: Annotated[Path, typer.Option(help="folder for the results; an unfinished run in it goes on")],
    jobs: Annotated[int, typer.Option(help="submissions graded at the same time")] = 1,
    scheduler: Annotated[str, typer.Option(help="address of a Dask scheduler, for a class larger than one machine")] = "",
    require_isolation: Annotated[bool, typer.Option("--require-isolation", help="refuse to run without Linux namespaces")] = False,
    anonymous: Annotated[Path | None, typer.Option(help="write results under pseudonyms, and who is who to this CSV outside OUT")] = None,
    manual: Annotated[Path | None, typer.Option(help="filled-in manual.csv with points for open questions")] = None,
    cell_seconds: Annotated[float, typer.Option(help="time for one cell")] = 30.0,
    notebook_seconds: Annotated[float, typer.Option(help="time for one notebook")] = 300.0,
    memory: Annotated[int, typer.Option(help="MB for one notebook")] = 4096,
    output: Annotated[int, typer.Option(help="MB that one cell may print")] = 8,
) -> None:
    """Grade a class: scores, feedback and report from a key and a folder of notebooks, without trusting a line of them."""
    from rxt_lite.cli import clear_errors
    from rxt_lite.grading.grade import grade_class, pseudonym, renamed, with_manual_points
    from rxt_lite.grading.jail import Limits, best_level
    from rxt_lite.grading.results import changed, read_manual, to_csv, write, write_reports
    from rxt_lite.grading.source import read_lab, to_text

    with clear_errors():
        if jobs < 1 or cell_seconds <= 0 or notebook_seconds <= 0 or memory < 256 or output < 1:
            raise ValueError("--jobs must be at least 1, times positive, --memory at least 256, --output at least 1")
        if anonymous is not None and out.resolve() in anonymous.resolve().parents:
            raise ValueError(f"--anonymous {anonymous} lies in {out}; who is who belongs elsewhere")
        lab = read_lab(key)
        if "key" not in lab.about:
            raise ValueError(f"{key} is a lab's source, not its key; make one: rxt-lite lab key {key} --secret FILE --out KEY")
        level = best_level()
        if require_isolation and level != "namespaces":
            raise ValueError("--require-isolation: Linux namespaces are not to be had here; see the instructor's page, or leave it out")
        limits = Limits(cell=cell_seconds, notebook=notebook_seconds, memory=memory, output=output)
        rows, failures = grade_class(to_text(lab.notebook), submissions, out, limits=limits, level=level, jobs=jobs, scheduler=scheduler,
                                     private=(str(key),), progress=show_progress)
        known = {pseudonym(row["student"], lab.about["salt"]): row["student"] for row in rows}  # manual.csv may hold either
        given = {(known.get(student, student), question): points for (student, question), points in
                 (read_manual(manual, lab) if manual else {}).items()}
        rows = with_manual_points(rows, given)
        if anonymous is not None:
            rows, names = renamed(rows, lab.about["salt"])
            write(anonymous, to_csv([{"student": a, "pseudonym": b} for a, b in sorted(names.items())], ["student", "pseudonym"]))
            rows = [{**row, "fingerprint": ""} for row in rows]
        for line in changed(out / "results.jsonl", rows):
            print(line)
        write_reports(rows, lab, out)
        if anonymous is not None:
            (out / "journal.jsonl").unlink()  # it knows the names
    unreadable = [row["student"] for row in rows if row["status"] == "unreadable"]
    for failure in failures:
        print(f"rxt-lite: not graded: {failure}", file=sys.stderr)
    graded = len(rows) - len(unreadable)
    print(f"{graded} graded ({level}), {len(unreadable)} unreadable, {len(failures)} failed; report: {out / 'class.csv'}")
    raise typer.Exit(1 if unreadable or failures else 0)


def show_progress(done: int, of: int) -> None:
    if sys.stderr.isatty() or os.environ.get("RXT_PROGRESS"):
        print(f"\r{done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
