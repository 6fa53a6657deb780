"""The house's walls: what stands where, and how it is imported."""

from __future__ import annotations

import re
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
    assert len(entries) <= 30, sorted(entries)


def run(script: str) -> None:
    """In a process of its own, where nothing of xpnet has been imported yet."""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["explain", "jacobian"])
def test_functions_are_not_hidden_by_modules(name: str) -> None:
    """A submodule that is imported becomes an attribute of its package, over a function's name."""
    run(
        "import importlib, xpnet\n"
        f"before = xpnet.{name}\n"
        "for module in ('train', 'predict', 'explain', 'gradcheck'):\n"
        "    importlib.import_module(f'xpnet.{module}')\n"
        f"assert callable(before) and xpnet.{name} is before\n"
        f"from xpnet import {name}\n"
        f"assert {name} is before"
    )


@pytest.mark.parametrize("name", ["explain", "jacobian"])
@pytest.mark.parametrize(
    "first",
    ["explain", "train", "predict", "gradcheck", "show.explain", "graph.jacobian",
     "commands.explain", "commands.gradcheck"],
)  # fmt: skip
def test_functions_are_functions_whatever_is_imported_first(name: str, first: str) -> None:
    run(
        f"import xpnet.{first}\nassert xpnet.{name}.__name__ == {name!r}\n"
        f"from xpnet import {name}\nassert {name} is xpnet.{name} and callable({name})"
    )


def test_a_plain_import_brings_nothing_that_few_need() -> None:
    late = {"matplotlib", "tyro", "tomli_w", "pooch", "torch", "jax", "cupy", "tqdm", "numpy"}
    run(f"import sys, xpnet\nfound = {late} & sys.modules.keys()\nassert not found, found")


@pytest.mark.parametrize("name", xpnet.__all__)
def test_every_public_name_comes_from_a_plain_import(name: str) -> None:
    run(
        f"import xpnet\nassert {name!r} in dir(xpnet)\n"
        f"from xpnet import {name} as found\nassert found is xpnet.{name}"
    )


def test_without_scikit_learn_the_estimators_say_what_to_install() -> None:
    run(
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "import xpnet\n"
        "assert 'Trainer' in xpnet.__all__ and 'MLPClassifier' not in xpnet.__all__\n"
        "from xpnet import *\n"
        "try:\n"
        "    from xpnet import MLPRegressor\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'xpnet[sklearn]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError"
    )


def test_public_names_are_known_to_type_checkers() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    block = Path(xpnet.__file__).read_text().split("if TYPE_CHECKING:")[1].split("\n\n")[0]
    names = ", ".join(re.findall(r" import (.*)", block)).split(", ")
    assert sorted(names) == sorted(xpnet.__all__)
    assert xpnet._LATER.keys() <= {*names}


@pytest.mark.parametrize("name", ["arrays", "backend", "errors", "files", "graph", "models"])
def test_rooms_come_from_a_plain_import(name: str) -> None:
    run(f"import xpnet\nassert xpnet.{name}.__name__ == 'xpnet.{name}'")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'xpnet' has no attribute 'Trainr'"):
        xpnet.Trainr  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Trainr'"):
        exec("from xpnet import Trainr")
