"""How the house is built: imports run one way, rooms have telling names, and what is installed is said once."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "rxt_lite"

# Each room and the rooms it may import, itself included.
MAY_IMPORT = {
    "config": {"config"},
    "profile": {"profile"},
    "layers": {"config", "layers"},
    "data": {"config", "data"},
    "models": {"config", "layers", "models"},
    "conversation": {"config", "layers", "models", "data", "conversation"},
    "training": {"config", "layers", "models", "data", "training"},
    "experiments": {"config", "profile", "layers", "models", "data", "conversation", "training", "experiments"},
    "figures": {"figures"},  # rows and arrays come in, figures go out
}
EVERYTHING = {*MAY_IMPORT, "widgets", "grading", "cli"}
for top_room in ("widgets", "grading", "cli"):
    MAY_IMPORT[top_room] = EVERYTHING


def room_of(file: Path) -> str:
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


def rooms_imported(file: Path) -> set[str]:
    """Rooms of rxt_lite that a file imports, anywhere in it."""
    rooms = set()
    package = ("rxt_lite", *file.relative_to(LIBRARY).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])]) if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "rxt_lite" else [base]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("rxt_lite.")}
    return rooms


FILES = sorted(file for file in LIBRARY.rglob("*.py") if file != LIBRARY / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_imports_run_one_way(file):
    room = room_of(file)
    assert room in MAY_IMPORT, f"a new room: say in MAY_IMPORT what {room} may import"
    assert rooms_imported(file) <= MAY_IMPORT[room]


def test_the_front_door_imports_nothing_heavy():
    """`import rxt_lite` and its profile cost nothing; what is heavy is imported by the room that needs it."""
    for name in ("__init__.py", "profile.py"):
        body = ast.parse((LIBRARY / name).read_text()).body
        imported = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
        assert imported <= {"os"} and not any(isinstance(node, ast.ImportFrom) for node in body)


def test_rooms_have_telling_names():
    vague = {"utils", "util", "common", "helpers", "misc"}
    assert [str(file) for file in LIBRARY.rglob("*") if file.name.removesuffix(".py") in vague] == []


def names_and_bounds(lines) -> dict[str, str]:
    """{"torch": ">=2.5", ...} from requirement lines."""
    pairs = (re.match(r"([A-Za-z0-9_.-]+)(.*)", re.sub(r"\s*#.*", "", line).strip()) for line in lines)
    return {pair[1].lower(): pair[2] for pair in pairs if pair}


def test_requirements_and_pyproject_say_the_same():
    """requirements.txt is the library, the extras book and test, and setuptools for the editable install."""
    project = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|book|test) = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert len(lists) == 3
    wanted = names_and_bounds(["setuptools>=77", *re.findall(r'"([^"]+)"', "".join(lists))])
    assert names_and_bounds((ROOT / "requirements.txt").read_text().splitlines()) == wanted


def test_library_names_lower_bounds_only():
    """An exact pin, or an upper bound, would replace what Colab has."""
    dependencies = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[1]
    for name, bound in names_and_bounds(re.findall(r'"([^"]+)"', dependencies)).items():
        assert re.fullmatch(r">=[\d.]+", bound), f"{name}{bound}"


def test_constraints_are_exact_and_public():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.match(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*( ; .+)?$", line)] == []
    assert "torch==2.13.0" in lines
