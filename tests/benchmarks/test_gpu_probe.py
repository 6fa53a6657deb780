"""The probe, from end to end on the simulated CuPy; and how it counts the nodes of a graph."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import simulated, simulator_environment

from benchmarks import gpu_probe
from benchmarks.gpu_probe import cut, nodes_by_type
from benchmarks.mega import Shape, reference
from benchmarks.problems import Case, batches

# Written by hand, in the form in which cudaGraphDebugDotPrint writes.
VERBOSE = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="solid" shape="record" label="{MEMSET
| {{ID | node handle | dptr | value | elementSize} | {0 (topoId: 3) | 0x01 | 0x02 | 0 | 1}}}"];

"graph_1_node_1"[style="bold" shape="record" label="{KERNEL
| {ID | 1 (topoId: 2) | MEMCPY_like_kernel\<\<\<\{16,10,2\},128,0\>\>\>}
| {{node handle | func handle} | {0x0A | 0x0B}}
| {accessPolicyWindow | {base_ptr | num_bytes | hitRatio} | {0x00 | 0 | 0.000000}}
| {cooperative | 0}
}"];
"graph_1_node_2"[style="solid" shape="record" label="{
MEMCPY
| {{ID | node handle} | {2 (topoId: 1) | 0x0C}}
| {kind | DtoD (DEVICE to DEVICE)}
}"];
"graph_1_node_3"[style="bold" shape="record" label="{KERNEL
| {ID | 3 (topoId: 0) | cupy_add\<\<\<1,128,0\>\>\>}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
"graph_1_node_1" -> "graph_1_node_2" [headlabel=0];
"graph_1_node_2" -> "graph_1_node_3" [headlabel=0];
}
}
"""
# Kernels by their names alone; one is called as a graph within the graph is labelled.
SHORT = """digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0
_Z9my_kerneliPf
"];
"graph_1_node_1"[style="bold" shape="octagon" label="1
graph_2
"];
"graph_1_node_2"[style="solid" shape="rectangle" label="2
graph_2
"];
"graph_1_node_3"[style="solid" shape="trapezium"label="3
MEMCPY
(DtoD,4096)
"];
"graph_1_node_4"[style="solid" shape="rectangle" label="4
SOMETHING_NEW
"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
}
}
"""


def test_nodes_are_counted_by_type() -> None:
    assert nodes_by_type(VERBOSE) == {"Memset": 1, "Kernel": 2, "Memcpy": 1}
    assert nodes_by_type(SHORT) == {"Kernel": 2, "Graph": 1, "Memcpy": 1, "Unknown": 1}
    assert nodes_by_type("digraph dot {\n}\n") == {}


SMALL = ["--networks", "20-6-3/8", "20-6-5-3/8", "--steps", "20", "--chain", "3", "--stacks", "2"]
SMALL += ["--images", "cnn", "--images-batch", "2", "--images-size", "8"]


@pytest.mark.slow
def test_the_probe_runs_through_on_the_simulator(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.gpu_probe", str(tmp_path), *SMALL, "--mega", "6x64", "8x32", "2x64"]
    done = simulated(*words)
    found = json.loads((tmp_path / "probe.json").read_text())
    failed = {
        (name, key): value
        for name, part in found.items()
        for key, value in (part.items() if isinstance(part, dict) else [("", part)])
        if str(value).startswith("FAILED")
    }
    # What there is only on a GPU, by name.
    assert set(failed) == {
        ("libraries", "nvrtc"), ("fast_16bf", "75 FAST_16BF"), ("fast_16bf", "74 FAST_16F"),
        ("mega", "HL2 TPB64"),
    }  # fmt: skip
    assert "NotImplementedError: simulator: there is no NVRTC" in failed["libraries", "nvrtc"]
    assert "simulator: mlp_steps: a cooperative kernel of 3" in failed["mega", "HL2 TPB64"]
    assert done.stdout.splitlines()[-1] == "probe: 4 checks failed"
    assert done.returncode == 1
    single = {"versions", "selected", "trains"}
    checks = sum(1 if name in single else len(part) for name, part in found.items())
    assert len(done.stdout.splitlines()) == checks + 1

    assert found["trains"]["cuda"]["accuracy"] > 0.8
    steps = found["steps"]
    assert list(steps) == [
        "20-6-3/8 sgd float32", "20-6-3/8 sgd float32 unfused", "20-6-3/8 adam float32",
        "20-6-3/8 sgd tf32", "20-6-3/8 sgd bfloat16", "20-6-5-3/8 sgd float32",
        "20-6-3/8 sgd float32 cublas", "20-6-5-3/8 sgd float32 cublas",
    ]  # fmt: skip
    fused, unfused, *_ = (sum(entry["nodes"].values()) for entry in steps.values())
    assert 5 < fused < unfused
    losses = [entry["loss"] for entry in steps.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(entry["us"] > 0 and entry["first_s"] > 0 for entry in steps.values())
    assert all(entry["fallbacks"] == [] for entry in steps.values())
    dot = (tmp_path / "steps.dot").read_text()
    assert dot.count("digraph") == len(steps)
    assert nodes_by_type(dot)["Kernel"] == sum(e["nodes"]["Kernel"] for e in steps.values())

    chains = found["chains"]
    assert chains["tiny add"]["nodes"] == {"Kernel": 1.0}
    assert chains["write 0-d"]["nodes"] == {"Memcpy": 1.0}
    assert chains["zeros"]["nodes"] == {"Memset": 1.0}
    assert len(chains) > 20
    images = found["images"]
    trainings = [entry for name, entry in images.items() if name.startswith("cnn adam")]
    assert len(trainings) == 4
    assert all(e["us"] > 0 and e["fallbacks"] == [] for e in trainings)
    assert sum(trainings[0]["nodes"].values()) == 24  # as docs/gpu.md has it
    assert images["cnn Convolution1 forward"]["nodes"] == {"Kernel": 1.0}
    assert images["cnn MaxPool1 backward"]["nodes"] == {"Kernel": 1.0}
    products = found["products"]
    assert len(products) == 5 + 8 + 5
    assert "2 of 20-6-3/8 8x20x6" in products
    assert all(time > 0 for times in products.values() for time in times.values())
    rounding = found["fast_16bf"]
    assert rounding["68 32F"] < 1e-6 < 1e-5 < rounding["77 FAST_TF32"] < 1e-3
    for name in ("HL6 TPB64", "HL8 TPB32"):  # one with units too many
        assert found["mega"][name]["loss_error"] < 1e-5
        assert found["mega"][name]["weight_error"] < 1e-4


def test_without_a_gpu_every_check_fails_and_none_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*names: Any, **options: Any) -> Any:
        raise RuntimeError("no GPU today")

    monkeypatch.setattr("xpnet.select", nothing)
    monkeypatch.setattr("benchmarks.gpu_probe._cublas", nothing)
    monkeypatch.setattr("benchmarks.gpu_probe.Mega", nothing)
    assert gpu_probe.main([str(tmp_path), *SMALL, "--mega", "6x64"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("selected ") and "no GPU today" in line for line in lines)
    for part in ("steps: 20-6-3/8 sgd float32", "chains", "fast_16bf: 68", "mega: HL6 TPB64"):
        assert any(line.startswith(part) and "FAILED" in line for line in lines), part
    assert lines[-1].startswith("probe: ")
    assert "FAILED" not in json.loads((tmp_path / "probe.json").read_text())["versions"]


def test_a_signal_ends_it_with_what_was_found(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.gpu_probe", str(tmp_path), *SMALL, "--steps", "100000"]
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **simulator_environment(),
    ) as process:  # fmt: skip
        file, deadline = tmp_path / "probe.json", time.monotonic() + 60
        while time.monotonic() < deadline and not (file.exists() and "trains" in file.read_text()):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        try:
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    found = json.loads(file.read_text())
    assert found["stopped"].startswith("steps: 20-6-3/8 sgd float32")
    assert "selected" in found
    assert f"probe: stopped during {found['stopped']}" in out
    assert re.fullmatch(r"probe: \d checks failed", out.splitlines()[-2])
    assert out.splitlines()[-1] == "interrupted by SIGTERM"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mega", "2x500"], "--mega 2x500: expected units and threads of a block"),
        (["--networks", "Q"], "network 'Q': expected S, M, L, D"),
        (["--steps", "0"], "--steps 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert gpu_probe.main([str(tmp_path / "new"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_the_single_kernel_is_held_against_what_all_contenders_are() -> None:
    """Its reference in NumPy is theirs."""
    from benchmarks.contenders import reference as everybody_s

    case = Case("20-6-3/8")
    problem, order = case.problem(), batches(case, 6)
    losses, trained = reference(problem.x, problem.t, problem.params, order, problem.lr)
    np.testing.assert_allclose(losses, everybody_s(problem)(order), rtol=1e-6)
    assert all(np.abs(w - problem.params[name]).max() > 0 for name, w in trained.items())


def test_the_book_s_network_fits_into_shared_memory() -> None:
    """Of an H100's block: 227 KiB; and its blocks onto the multiprocessors, of which it has 132."""
    for text in gpu_probe.Arguments.mega:
        units, threads = cut(text)
        shape = Shape(784, 50, 10, 100, units, threads)
        assert shape.shared_bytes <= 227 * 1024
        assert shape.blocks <= 132
