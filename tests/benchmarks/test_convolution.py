"""The benchmark of convolutions: all compute the same, the command runs, what was asked is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import convolution, gpu_report, im2col, readme, results
from benchmarks.convolution import batches, step_mib, verdicts
from benchmarks.image_contenders import CONVOLUTIONS, TRAININGS, book_convolution
from benchmarks.image_problems import NETWORKS, SHAPES, ImageCase, layers, products
from benchmarks.results import Measurement, read

STEPS = 6
# The compiler takes a minute, and the command checks its losses too; the scan is tested below.
ELSEWHERE = ("pytorch compile", "jax scan")


def library_of(contender: str) -> str:
    words = contender.split()
    return {"book": "numpy", "pytorch": "torch"}.get(words[0], words[words[0] == "xpnet"])


def need(contender: str) -> None:
    library = library_of(contender)
    if library != "numpy":
        pytest.importorskip(library, reason=f"{library} is not installed")


def test_windows_become_rows() -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    assert im2col.im2col(x, 2, 1, 0).tolist() == [
        [0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8],
    ]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (3, 2, 1)])
def test_col2im_is_the_adjoint_of_im2col(kernel: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 6))
    col = im2col.im2col(x, kernel, stride, padding)
    other = rng.standard_normal(col.shape)
    back = im2col.col2im(other, x.shape, kernel, stride, padding)
    assert np.sum(col * other) == pytest.approx(np.sum(x * back))


@pytest.mark.parametrize("name", [name for name in TRAININGS["cpu"] if name not in ELSEWHERE])
def test_every_contender_trains_the_same_network(name: str) -> None:
    need(name)
    case = ImageCase("tiny")
    problem, order = case.problem().without_dropout(), batches(case, STEPS)
    expected = im2col.train(problem, np.float64)(order)
    losses = TRAININGS["cpu"][name](problem)(order)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    still = im2col.train(problem._replace(lr=0.0), np.float64)(order)
    assert np.all(np.abs(still - expected)[1:] > 1e-3)  # the training changes all of them


@pytest.mark.parametrize("name", ["xpnet numpy", "book formulas", "pytorch eager", "jax scan"])
def test_contenders_drop_out(name: str) -> None:
    """Otherwise a time would be that of another network; each library draws its own masks."""
    need(name)
    case = ImageCase("tiny")
    problem, order = case.problem(), batches(case, STEPS)
    losses = TRAININGS["cpu"][name](problem)(order)
    without = im2col.train(problem.without_dropout(), np.float64)(order)
    assert np.isfinite(losses).all()
    assert np.all(np.abs(losses - without) > 1e-4)


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_every_contender_computes_the_same_convolution(name: str) -> None:
    need(name)
    exact = book_convolution(SHAPES["tiny"], np.float64)()
    found = CONVOLUTIONS[name](SHAPES["tiny"])()
    for ours, theirs in zip(found, exact, strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-5)


def test_networks_are_the_books() -> None:
    """Shapes as the book's chapters 7 and 8 give them; the work of a step on paper."""
    shapes = [layer.weights for layer in layers(NETWORKS["SimpleConvNet"]) if layer.number]
    assert shapes == [(30, 1, 5, 5), (4320, 100), (100, 10)]
    shapes = [layer.weights for layer in layers(NETWORKS["DeepConvNet"]) if layer.number]
    assert shapes[3:] == [(32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (1024, 50), (50, 10)]
    sizes = [each.size for each in layers(NETWORKS["DeepConvNet"]) if each.kind == "convolution"]
    assert sizes == [28, 28, 14, 16, 8, 8]
    convolution_flops = 2 * (2 * 100 * 24 * 24 * 25 * 30)  # forward and dW
    affine_flops = 3 * (2 * 100 * 4320 * 100 + 2 * 100 * 100 * 10)
    found = sum(product.flops for product in products(NETWORKS["SimpleConvNet"]))
    assert found == convolution_flops + affine_flops


def test_the_memory_of_a_step_is_that_of_its_arrays() -> None:
    def epoch(order: np.ndarray) -> np.ndarray:
        return np.ones((len(order), order.shape[1], 2**20), np.uint8)  # a MiB for each row

    found = step_mib(epoch, np.zeros((1, 40), np.int32))
    if found is None:
        pytest.skip("this system does not say how much memory a process has had")
    assert 36 < found < 48


def test_the_command_measures_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "convolution.jsonl"
    words = ["--networks", "tiny", "--shapes", "tiny", "--rounds", "2", "--seconds", "0.001"]
    words += ["--clock", "cpu", "--out", str(out), "--only", "xpnet numpy", "book formulas"]
    assert convolution.main(words) == 0
    printed = capsys.readouterr().out
    assert "tiny batch 4, Adam\n" in printed
    assert "2x5x5, 3 of 3x3\n" in printed
    header, measurements = read(out)
    assert header["benchmark"] == "convolution"
    assert header["threads"] == 1
    assert len(measurements) == 4
    for m in measurements:
        assert len(m["values"]) == 2
        assert 0 < m["loss_error"] < 1e-4
        assert "provisional" not in m
        assert ("mib" in m) == ("network" in m["case"])
    assert gpu_report.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "convolution: tiny\n" in printed
    assert "convolution: 2x5x5, 3 of 3x3\n" in printed


def made_up(network: str, **us: float) -> list[Measurement]:
    case = {"network": network, "batch": 100, "optimizer": "adam"}
    return [
        {"case": case, "contender": word.replace("_", " "), "median": value, "values": [value]}
        for word, value in us.items()
    ]


def test_what_was_asked_is_held_against_what_was_measured() -> None:
    simple = made_up("SimpleConvNet", xpnet_numpy=2.0, pytorch_eager=1.8, book_formulas=9.0)
    deep = made_up("DeepConvNet", xpnet_numpy=2.0, pytorch_eager=1.0, xpnet_torch=1.5)
    found = list(verdicts([*simple, *deep]))
    assert [round(v.measured, 2) for v in found] == [4.5, 0.9, 2.0, 1.5]
    assert [v.holds for v in found] == [True, False, True, False]
    assert [v.most for v in found] == [False, False, True, True]
    on_gpu = [{**m, "case": {**m["case"], "device": "cuda"}} for m in simple]
    assert list(verdicts(on_gpu)) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "xpnet abacus"], "--only xpnet abacus: expected some of "),
        (["--networks", "LeNet"], "--networks LeNet: expected some of SimpleConvNet"),
        (["--shapes", "round"], "--shapes round: expected some of first"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["--device", "cuda", "--clock", "cpu"], "--clock cpu: expected wall on a GPU"),
        (["--networks", "tiny", "--data-dir", "/"], "network 'tiny' has images of 8 x 8"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convolution.main(words) == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu_every_contender_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cuda", "--networks", "tiny", "--only", "xpnet cupy", "jax scan"]
    assert convolution.main(words) == 3
    captured = capsys.readouterr()
    assert captured.out.count("skipped, ") == 2
    assert "no contender is left" in captured.err


def test_a_contender_that_trains_something_else_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(problem: Any, dtype: Any) -> Any:
        return lambda order: 0.5 * exact(problem, dtype)(order)

    exact = im2col.train
    monkeypatch.setattr(im2col, "train", halved)
    words = ["--networks", "tiny", "--shapes", "--seconds", "0.001", "--only", "xpnet numpy"]
    assert convolution.main(words) == 3
    assert "xpnet numpy: FAILED, trains something else" in capsys.readouterr().out


def test_the_pages_show_the_committed_results() -> None:
    header, measurements = read(results.newest("convolution"))
    networks = {m["case"]["network"] for m in measurements if "network" in m["case"]}
    assert networks == {"SimpleConvNet", "DeepConvNet"}
    section = "\n".join(convolution.section(header, measurements))
    for page in ("docs/speed.md", "benchmarks/RESULTS.md"):
        assert section in (readme.ROOT / page).read_text(encoding="utf-8")
    sentence = convolution.in_a_line(header, measurements)
    assert sentence in (readme.ROOT / "README.md").read_text(encoding="utf-8")
