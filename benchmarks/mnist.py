"""``python -m benchmarks.mnist`` runs whole trainings on MNIST with xpnet's command."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks import machine
from benchmarks.interrupts import Interrupted, orderly
from xpnet.files import write_whole

__all__ = ["RUNS", "main"]

BOOK = "--hidden 50 --optimizer sgd --lr 0.1 --batch-size 100 --epochs 17 --schedule constant"
# Name, options, smallest expected test accuracy.
RUNS: tuple[tuple[str, str, float], ...] = (
    ("784-50-10 sigmoid, SGD, 17 epochs", f"{BOOK} --activation sigmoid", 0.94),
    ("784-50-10 relu, SGD, 17 epochs", f"{BOOK} --activation relu", 0.965),
    (
        "784-512-256-10 relu, Adam, 10 epochs",
        "--hidden 512,256 --activation relu --optimizer adam --lr 1e-3 --schedule constant "
        "--epochs 10 --batch-size 100",
        0.977,  # runs with other seeds and BLAS libraries ended at 0.978 to 0.983
    ),
)


@dataclass(frozen=True)
class Arguments:
    """Train three networks on MNIST; record accuracy, time and memory."""

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, xpnet downloads them."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to train on."""
    backend: str | None = None
    """Array library; by default numpy on the CPU, cupy on CUDA."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Precision of the matrix products."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this JSON file, after each run those so far."""
    limit: float = 3600.0
    """Most seconds for a run. A slower run is ended, and the others continue."""


class RunFailed(Exception):
    """A training ended with a status other than 0."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def backend_of(arguments: Arguments) -> str:
    return arguments.backend or {"cpu": "numpy", "cuda": "cupy"}[arguments.device]


def run(options: str, arguments: Arguments) -> dict[str, Any]:
    """Run one training in its own process.

    Raises
    ------
    RunFailed
        The training ended with a status other than 0, or did not end within its limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xpnet.train", "--device", arguments.device, "--quiet"]
        command += ["--dataset", "mnist", "--backend", backend_of(arguments)]
        command += ["--precision", arguments.precision]
        command += ["--out", f"{folder}/run", *options.split()]
        if arguments.data_dir is not None:
            command += ["--data-dir", str(arguments.data_dir.resolve())]
        began = time.perf_counter()
        try:
            status = subprocess.run(command, check=False, timeout=arguments.limit).returncode
        except subprocess.TimeoutExpired:
            raise RunFailed(1, f"xpnet.train took more than {arguments.limit:g} s") from None
        if status:  # the training has printed why
            raise RunFailed(status, f"xpnet.train ended with status {status}")
        wall = time.perf_counter() - began
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    # This is the largest of all children so far, so the runs go from small to large.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "options": options,
        "test_accuracy": summary["test_accuracy"],
        "epochs": summary["epochs"],
        "train_seconds": round(summary["train_seconds"], 2),
        "samples_per_second": round(summary["samples_per_second"]),
        "wall_seconds": round(wall, 2),
        "peak_resident_mib": round(peak / 1024),
    }


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.mnist")
    results: dict[str, Any] = {
        "benchmark": "mnist", "device": arguments.device, "backend": backend_of(arguments),
        "precision": arguments.precision, "runs": {},
    }  # fmt: skip
    results["machine"] = machine.record()
    worst, out = 0, arguments.out
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    for name, options, expected in RUNS:
        try:
            result = run(options, arguments)
        except Interrupted:
            if out is not None and results["runs"]:
                print(f"wrote {out}: {len(results['runs'])} runs so far", flush=True)
            raise
        except RunFailed as reason:  # the next run may still work
            print(f"python -m benchmarks.mnist: {name}: {reason}", file=sys.stderr, flush=True)
            worst = max(worst, reason.status)
            continue
        results["runs"][name] = result
        if out is not None:
            write_whole(out, json.dumps(results, indent=2) + "\n")
        verdict = "" if result["test_accuracy"] >= expected else f"  BELOW {expected}"
        worst = max(worst, int(bool(verdict)))
        print(
            f"{name:<38} {result['test_accuracy']:.4f}  {result['wall_seconds']:6.1f} s  "
            f"{result['peak_resident_mib']} MiB{verdict}",
            flush=True,
        )
    return worst


if __name__ == "__main__":
    sys.exit(main())
