"""The import rules of the layout, over all imports: in functions and for type checking too.

A lazy face passes names on, so that an import from it is one of the module that has the name.
"""

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTRUMENTS = {
    "loop", "torchrun", "meter", "records", "columns", "claim", "folder", "style", "picture",
    "probe", "noise", "tasks",
}  # fmt: skip
QUESTIONS = {"study", "frontier", "plan", "truth", "cost", "sweep", "bench", "verify", "scores",
    "audit",
}  # fmt: skip
GATHER = {"plot", "report", "gpu", "paper", "explore", "reproduce"}  # stand above the rooms
COMMANDS = {"commands", "__main__"}
SPEND = {"plan": {"frontier"}, "cost": {"frontier"}}  # a budget


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "sketchvar" else ("sketchvar", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(file): file
    for folder in ("estimators", "analysis")
    for file in (ROOT / folder).rglob("*.py")
}
FACES = {
    name: {
        alias.asname or alias.name: f"{name}.{node.module}"
        for node in ast.parse(file.with_suffix(".pyi").read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for name, file in FILES.items()
    if file.with_suffix(".pyi").exists()
}


def imports(name):
    """The modules that one imports: ours by their full names, others by their first."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {find(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found |= set(FACES.get(module, {}).values())  # the face itself: all that it shows
                found.add(FACES.get(node.module, {}).get(alias.name) or find(module, node.module))
    return found - {name}


def find(module, package=None):
    if module in FILES:
        return module
    return (package or module) if (package or module) in FILES else module.partition(".")[0]


GRAPH = {name: imports(name) for name in FILES}


def reach(name):
    """All modules that one imports, directly or not."""
    found, left = set(), [name]
    while left:
        new = GRAPH.get(left.pop(), set()) - found
        found, left = found | new, [*left, *new]
    return found


def room(name):
    """The first name after ``sketchvar.analysis``; "" outside of it."""
    _, _, rest = name.partition("sketchvar.analysis.")
    return rest.partition(".")[0]


def allowed(one):
    if one in INSTRUMENTS:
        return INSTRUMENTS
    if one in QUESTIONS:
        return INSTRUMENTS | {one} | SPEND.get(one, set())
    return INSTRUMENTS | QUESTIONS | GATHER | (COMMANDS if one in COMMANDS else set())


def test_there_are_no_circles():
    TopologicalSorter(GRAPH).prepare()  # names the circle


def test_estimators_know_no_analysis():
    for name in FILES:
        if name.startswith("sketchvar.estimators"):
            assert not any(room(other) for other in GRAPH[name]), name


HEAVY = ("sketchvar.estimators", "torch")
PICTURES = [n for n in FILES if n.endswith((".figure", "figures")) and room(n) not in COMMANDS] + [
    "sketchvar.analysis.plot"
]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_know_no_torch_and_no_estimators(name):
    assert not {other for other in reach(name) if other.startswith(HEAVY)}


def test_every_room_knows_only_what_is_below_it():
    wrong = [
        f"{name} imports {other}"
        for name in FILES
        if room(name)
        for other in GRAPH[name]
        if room(other) not in allowed(room(name)) | {""}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rules_would_see_what_breaks_them():
    assert {"torch", "sketchvar.estimators.seeds"} < reach("sketchvar.analysis.frontier.rows")
    assert "sketchvar.analysis.noise.table" in reach("sketchvar.analysis.sweep.run")  # by the face
    assert "study" not in allowed("probe") and "frontier" not in allowed("study")
    assert "commands" not in allowed("report") and "frontier" in allowed("plan")


@pytest.mark.parametrize("name", FACES)
def test_a_face_shows_what_is_there_and_hides_no_module(name):
    for shown, module in FACES[name].items():
        assert hasattr(import_module(module), shown), f"{module} has no {shown}"
        assert f"{name}.{shown}" not in FILES, f"{shown} is a module of {name} too"


def test_every_file_has_its_place():
    rooms = {room(name) for name in FILES if room(name)}
    assert rooms <= INSTRUMENTS | QUESTIONS | GATHER | COMMANDS
    assert len(list((ROOT / "analysis").glob("*.py"))) <= 14
