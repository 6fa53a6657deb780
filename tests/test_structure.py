"""Imports point one way, and only the backend names a GPU library."""

from __future__ import annotations

import ast
from pathlib import Path

import xpnet

PACKAGE = Path(xpnet.__file__).parent

# What each module may import of ours, layer by layer; a new module has to find its place.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "cli": {"errors"},
    "kernels": set(),
    "ops": {"kernels"},
    "hashing": {"kernels", "ops"},
    "init": set(),
    "checkpoint": {"errors"},
    "data": {"errors"},
    "readers": {"errors"},
    "tables": {"errors", "readers"},
    "gates": {"ops"},
    "optim": {"kernels", "ops"},
    "layers": {"gates", "hashing", "kernels", "ops"},
    "losses": {"gates", "kernels", "ops"},
    "array_gates": {"gates", "ops"},
    "node": {"array_gates", "gates", "graph", "ops"},  # graph: for its type alone
    "draw": {"array_gates", "gates", "node", "ops"},
    "passes": {"array_gates", "gates", "kernels", "node", "ops"},
    "graph": {"draw", "files", "gates", "node", "ops", "passes"},
    "functions": {"array_gates", "gates", "layers", "losses", "node"},
    "jacobian": {"graph", "node", "ops"},
    "explain": {
        "array_gates", "checkpoint", "cli", "config", "data", "datasets", "draw", "errors", "files",
        "gates", "layers", "losses", "models", "node", "ops", "passes", "trainer",
    },
    "lecture": {"array_gates", "draw", "gates", "layers", "node", "ops", "passes"},
    "book": {"gradcheck", "layers", "lecture", "losses", "models", "ops"},
    "files": set(),
    "history": {"checkpoint"},
    "models": {"gates", "graph", "init", "layers", "losses", "node"},
    "backend": {"errors", "kernels", "ops", "optim"},
    "checks": {"data", "errors", "models"},
    "datasets": {"checks", "data", "errors", "readers", "tables"},
    "step": {"backend", "models", "ops", "optim"},
    "feed": {"backend", "data", "errors", "kernels", "ops"},
    "evaluation": {"feed", "models", "ops"},
    "resume": {"checkpoint", "errors", "history", "trainer"},  # trainer: for its type alone
    "trainer": {
        "backend", "checkpoint", "checks", "data", "errors", "evaluation", "feed", "history",
        "models", "ops", "optim", "resume", "step",
    },
    "gradcheck": {"backend", "cli", "errors", "graph", "models", "node"},
    "config": {"errors", "models", "optim"},
    "parts": {"config", "data", "datasets", "errors"},
    "plots": {"data", "errors", "history", "trainer"},
    "predict": {
        "backend", "checkpoint", "cli", "errors", "files", "readers", "tables", "trainer",
    },
    "train": {
        "backend", "cli", "config", "data", "errors", "files", "history", "models", "parts",
        "plots", "trainer",
    },
}  # fmt: skip


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "xpnet":
                names |= {f"xpnet.{alias.name}" for alias in node.names}
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_imports_point_one_way() -> None:
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        module = module_of(path)
        if module in ("__init__", "__main__"):
            continue
        seen.add(module)
        ours = {
            name.split(".")[1]
            for name in imported(ast.parse(path.read_text()))
            if name.startswith("xpnet.")
        }
        assert ours - {module} <= ALLOWED[module], path.name
    assert seen == ALLOWED.keys()


def test_only_the_backend_names_a_gpu_library() -> None:
    for path in PACKAGE.rglob("*.py"):
        if module_of(path) == "backend":
            continue
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not roots & {"cupy", "torch", "jax"}, path.name


def test_the_allowed_imports_have_no_cycle() -> None:
    graph = {module: set(names) for module, names in ALLOWED.items()}
    graph["resume"].discard("trainer")  # under TYPE_CHECKING
    graph["node"].discard("graph")
    while graph:
        leaves = {module for module, names in graph.items() if not names & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {module: names for module, names in graph.items() if module not in leaves}
