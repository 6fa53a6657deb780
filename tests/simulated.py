"""Runs a command on the simulated CuPy of `tests/simulator`, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
SIMULATOR = TESTS / "simulator"


def simulator_environment() -> dict[str, Any]:
    """For `subprocess`: a Python that finds the simulator where others find CuPy."""
    if shutil.which("g++") is None or shutil.which("gcc") is None:
        pytest.skip("the simulator of CuPy compiles its kernels: g++ or gcc is not installed")
    path = f"{SIMULATOR}{os.pathsep}{TESTS.parent}"
    return {"cwd": TESTS.parent, "env": {**os.environ, "PYTHONPATH": path}}


def simulated(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, check=False, **simulator_environment(),
    )  # fmt: skip
