"""The house's walls: what stands where, and how it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import xpnet

ROOT = Path(__file__).resolve().parents[1]


def test_imports_point_downwards() -> None:
    """The contracts of pyproject.toml: floors, and who may name a GPU library."""
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_few_things_lie_at_the_top() -> None:
    entries = [p.name for p in Path(xpnet.__file__).parent.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 24, sorted(entries)


@pytest.mark.parametrize("name", ["explain", "jacobian"])
def test_functions_are_not_hidden_by_modules(name: str) -> None:
    """A submodule that is imported becomes an attribute of its package, over a function's name."""
    script = (
        "import importlib, xpnet\n"
        f"before = xpnet.{name}\n"
        "for module in ('train', 'predict', 'explain', 'gradcheck'):\n"
        "    importlib.import_module(f'xpnet.{module}')\n"
        f"assert callable(before) and xpnet.{name} is before\n"
        f"from xpnet import {name}\n"
        f"assert {name} is before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    first = f"import xpnet.explain\nassert xpnet.{name}.__name__ == {name!r}"
    subprocess.run([sys.executable, "-c", first], check=True)
