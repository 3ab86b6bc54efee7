"""What `make book` may take from an earlier run: everything while nothing changed, nothing that a change made stale."""

import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import build  # noqa: E402  tools/build.py, which `make book` calls


@pytest.fixture
def house(tmp_path) -> Path:
    for name in ("rxt_lite/config.py", "rxt_lite/layers/gate.py", "book/results/recall.json", "constraints.txt", "book/intro.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    return tmp_path


@pytest.mark.parametrize("name", ["rxt_lite/config.py", "rxt_lite/layers/gate.py", "book/results/recall.json", "constraints.txt"])
def test_outputs_depend_on_the_library_on_results_and_on_versions(house, name):
    before = build.fingerprint(house, "ci")
    (house / name).write_text("new")
    assert build.fingerprint(house, "ci") != before


def test_outputs_depend_on_a_file_that_moved_and_on_the_profile(house):
    before = build.fingerprint(house, "ci")
    assert build.fingerprint(house, "cpu") != before
    (house / "rxt_lite/config.py").rename(house / "rxt_lite/settings.py")
    assert build.fingerprint(house, "ci") != before


def test_outputs_do_not_depend_on_prose_or_on_compiled_files(house):
    before = build.fingerprint(house, "ci")
    (house / "book/intro.md").write_text("new")
    (house / "rxt_lite/__pycache__").mkdir()
    (house / "rxt_lite/__pycache__/config.pyc").write_bytes(b"new")
    assert build.fingerprint(house, "ci") == before


def test_what_is_stale_is_forgotten_and_what_is_not_is_kept(tmp_path):
    made = [tmp_path / ".jupyter_cache" / "global.db", tmp_path / "runs" / "model.safetensors"]

    def run_with(key: str) -> list[bool]:
        build.forget_what_is_stale(tmp_path, key)
        kept = [file.exists() for file in made]
        for file in made:
            file.parent.mkdir(exist_ok=True)
            file.write_text("made")
        return kept

    assert run_with("a") == [False, False]
    assert run_with("a") == [True, True]
    assert run_with("b") == [False, False]
    assert run_with("a") == [False, False]


def test_a_build_begins_with_what_another_of_the_same_key_has_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_tests, readers = Path("_build/test/_build"), Path("_build")
    (of_tests / ".jupyter_cache").mkdir(parents=True)
    (of_tests / ".jupyter_cache" / "outputs").write_text("executed")
    (of_tests / "key").write_text("this one")
    build.take_over(readers, "another")
    assert not (readers / ".jupyter_cache").exists()
    build.take_over(readers, "this one")
    assert (readers / ".jupyter_cache" / "outputs").read_text() == "executed"
    (readers / ".jupyter_cache" / "outputs").write_text("my own")
    build.take_over(readers, "this one")
    assert (readers / ".jupyter_cache" / "outputs").read_text() == "my own"


def test_chapters_are_executed_once_and_a_failing_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, cells = tmp_path / "_build", nbformat.v4
    Path("book").mkdir()
    for name, source in (("good", "print(PROFILE)"), ("bad", "raise ValueError('planted')")):
        parameters = cells.new_code_cell("PROFILE = None", metadata={"tags": ["parameters"]})
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(cells.new_notebook(cells=[parameters, cells.new_code_cell(source)], metadata=kernel), f"book/{name}.ipynb")
    assert build.execute(folder, "ci") == [Path("book/bad.ipynb")]
    assert build.cached(folder, Path("book/good.ipynb")) and not build.cached(folder, Path("book/bad.ipynb"))
    executed = folder / "executed" / "good.ipynb"
    assert build.with_outputs(Path("book/good.ipynb"), executed).cells[1].outputs[0].text == "ci\n"
    assert "peak_mb" in nbformat.read(executed, as_version=4).cells[-1].outputs[0].text

    Path("book/bad.ipynb").unlink()
    executed.unlink()
    assert build.execute(folder, "ci") == [] and not executed.exists(), "nothing was left to run"
