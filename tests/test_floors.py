"""Imports run downwards. The table is the architecture; these tests keep it true, and its rooms small."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import quantiles

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "biovae"
FLOORS = [  # from the ground up; same names as the files and folders
    {"errors", "kernels"},
    {"noise", "schema", "recipe", "artifact"},
    {"source", "batch"},
    {"nn", "distributions", "data", "analysis"},
    {"likelihoods", "posteriors", "datasets"},
    {"priors", "objective", "diagnostics"},
    {"modalities"},
    {"network"},
    {"training"},
    {"model"},
    {"tools"},
    {"plotting"},
    {"report"},
    {"run"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS, start=1) for room in rooms}

MATHEMATICS = {
    "nn", "distributions", "likelihoods", "priors", "posteriors", "objective", "network", "training",
    "batch", "noise", "schema", "source", "recipe", "kernels",
}  # fmt: skip
LIBRARIES = {"torch", "numpy", "scipy", "pandas", "pydantic", "jaxtyping", "biovae"} | set(sys.stdlib_module_names)
EXTRA_LIBRARIES = {
    "priors": {"zuko"},
    "training": {"rich"},
    "kernels": {"numba", "triton"},
}  # where they are used, and only then
ANALYSIS = [
    "normalise",
    "limits",
    "pooling",
    "neighbourhoods",
    "axes",
    "space",
    "trajectories",
    "groups",
    "oddities",
    "models",
]
ANALYSIS_MAY_IMPORT = {"analysis", "errors", "noise"}  # arrays in, records out: never a model

DOORS = {
    "biovae.cli.commands.fit", "biovae.cli.commands.sweep", "biovae.cli.commands.compare",
    "biovae.modalities.rna.rna", "biovae.model.vae.fit",
    "biovae.tools.sweep.sweep", "biovae.tools.differential.differential",
    "biovae.tools.counterfactual.counterfactual", "biovae.tools.path.path",
    "biovae.tools.trajectory.trajectory",
}  # each word is a user's, and optional  # fmt: skip
LINES, FUNCTION_LINES, USUAL_FUNCTION_LINES, PARAMETERS = 400, 60, 40, 9
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rooms_imported(path: Path) -> set[str]:
    dotted = (name.split(".") for name in imports(path))
    return {parts[1] for parts in dotted if parts[0] == "biovae" and parts[1:] and not parts[1].startswith("__")}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module(path)}.{node.name}", node, (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} - {"__init__", "__main__"} <= set(FLOOR)


def test_every_import_goes_down():
    climbs = []
    for path in FILES:
        here = room(path)
        if here in ("__init__", "__main__"):
            continue
        for other in rooms_imported(path) - {here}:
            if FLOOR[other] >= FLOOR[here]:
                climbs.append(f"{module(path)} (floor {FLOOR[here]}) imports {other} (floor {FLOOR[other]})")
    assert not climbs, "\n".join(climbs)


def test_imports_go_down_inside_analysis_too():
    level = {name: i for i, name in enumerate(ANALYSIS)}
    climbs = []
    for path in FILES:
        here = module(path).split(".")[1:3]
        if here[:1] == ["analysis"] and len(here) > 1:
            found = {name.split(".")[2] for name in imports(path) if name.startswith("biovae.analysis.")}
            climbs += [f"{module(path)} imports {other}" for other in found if level[other] > level[here[1]]]
    assert not climbs, "\n".join(climbs)


def test_no_import_runs_in_a_circle():
    known = {module(path) for path in FILES} - {"biovae"}
    graph = {}
    for path in FILES:
        names = set(imports(path)) | {name.rpartition(".")[0] for name in imports(path)}
        graph[module(path)] = (names & known) - {module(path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' <- '.join(error.args[1])}")


def test_mathematics_knows_no_files():
    strangers = []
    for path in FILES:
        if room(path) in MATHEMATICS:
            allowed = LIBRARIES | EXTRA_LIBRARIES.get(room(path), set())
            found = {name.split(".")[0] for name in imports(path)} - allowed
            strangers += [f"{module(path)} imports {name}" for name in sorted(found)]
    assert not strangers, "\n".join(strangers)


def test_data_builds_no_networks():
    wrong = [module(path) for path in FILES if room(path) == "data" and any("torch.nn" in n for n in imports(path))]
    assert not wrong


def test_a_face_names_what_it_has_and_nothing_twice():
    for path in FILES:
        if path.name == "__init__.py":
            face = importlib.import_module(module(path))
            names = getattr(face, "__all__", [])
            assert len(names) == len(set(names)), f"{module(path)}: {sorted(n for n in names if names.count(n) > 1)}"
            assert not [name for name in names if not hasattr(face, name)], module(path)


def test_analysis_imports_no_model():
    wrong = {module(path): rooms_imported(path) - ANALYSIS_MAY_IMPORT for path in FILES if room(path) == "analysis"}
    assert not {name: rooms for name, rooms in wrong.items() if rooms}


def test_the_gpu_benchmark_needs_no_more_than_the_mathematics():
    root = PACKAGE.parents[1]
    strangers = ["anndata", "mudata", "zarr", "numba", "zuko", "sklearn", "rich", "typer", "matplotlib", "igraph"]
    blocked = f"import sys; sys.path[:0] = [{str(root)!r}]; sys.modules.update(dict.fromkeys({strangers}))"
    subprocess.run([sys.executable, "-c", f"{blocked}; import benchmarks.gpu"], check=True)


def test_importing_the_package_is_cheap():
    heavy = ["torch", "anndata", "pandas", "scipy", "sklearn", "matplotlib", "pydantic"]
    code = f"import sys, biovae; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_files_are_short():
    lengths = {module(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > LINES}


def test_functions_are_short():
    lengths = {name: lines for name, _, lines in functions()}
    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}
    assert quantiles(lengths.values(), n=20)[-1] <= USUAL_FUNCTION_LINES, "one function in twenty may be longer"


def test_parameter_lists_are_short():
    counts = {
        name: sum(a.arg not in ("self", "cls") for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
        for name, node, _ in functions()
        if "triton.jit" not in map(ast.unparse, node.decorator_list)  # a GPU is handed its pointers one by one
    }
    assert not {name: count for name, count in counts.items() if count > PARAMETERS and name not in DOORS}
