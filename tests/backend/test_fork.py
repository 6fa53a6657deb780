"""Forked processes: libraries with threads refuse to run in them, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, warnings, numpy as np, xpnet
from xpnet.commands import train

warnings.simplefilter("ignore")  # JAX warns of every fork
library = sys.argv[1]
make = lambda: xpnet.Trainer(xpnet.mlp([300, 300, 2]), backend=xpnet.select("cpu", library))
x, t = np.ones((300, 300)), np.arange(300) % 2
trainer = make()
trainer.fit(x, t, epochs=1)
trainer.save("m.npz")
works = {
    "predict": lambda: trainer.predict(x),
    "fit": lambda: trainer.fit(x, t, epochs=1),
    "make": make,
    "load": lambda: xpnet.Model.load("m.npz", backend=xpnet.select("cpu", library)),
    "main": lambda: train.main(["--backend", library, "--quiet", "--epochs", "1"]),
    "numpy": lambda: xpnet.Model.load("m.npz").predict(x),
}
for name, work in works.items():
    if os.fork() == 0:
        signal.alarm(60)  # a library that is not refused waits for ever
        try:
            result = work()
            print(name, result if name == "main" else "runs", flush=True)
        except xpnet.errors.DeviceError as error:
            print(name, error, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_a_fork_of_a_process_with_threads_is_refused(in_tmp: Path, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, library], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    answers = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    refusal = f"{library} cannot run in a process forked from one that used it; start processes by"
    assert [name for name, answer in answers.items() if answer.startswith(refusal)] == [
        "predict", "fit", "make", "load",
    ]  # fmt: skip
    assert (answers["main"], answers["numpy"]) == ("3", "runs")
    assert result.stderr.startswith(f"xpnet: {refusal}")
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()
