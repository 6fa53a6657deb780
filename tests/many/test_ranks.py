"""Sets whose models are spread over ranks, against the same sets on one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.ranks import on_ranks
from xpnet import optim
from xpnet.errors import CheckpointError, RankError, UsageError
from xpnet.many import ModelSet, Progress, chunks, halving, plan, sharing
from xpnet.models import checkpoint
from xpnet.parallel import Group

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4))
T = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int) + (X[:, 3] > 0.7)
VALUES = (np.sin(X[:, 0]) + X[:, 1])[:, None]
NETWORK = xpnet.mlp([4, 6, 3])
IMAGES = RNG.random((40, 6, 6), np.float32)
LABELS = (IMAGES[:, :3].mean(axis=(1, 2)) > IMAGES[:, 3:].mean(axis=(1, 2))).astype(int)
CNN = xpnet.cnn((1, 6, 6), [3], [4], 2, batch_norm=True)
GRID = {"lr": [0.1, 1e-6, 0.01, 1e-7], "sizes": [[4, 3], [4, 6, 3]]}


def fit(*arguments: Any, **options: Any) -> ModelSet:
    return xpnet.fit_many(*arguments, dtype="float64", **options)


def same(found: ModelSet, whole: ModelSet) -> None:
    """Assert that two sets are the same, to rounding."""
    assert found.members == whole.members
    assert found.notes == whole.notes
    assert found.score_name == whole.score_name
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-12)
    for k, (mine, theirs) in enumerate(zip(found.histories, whole.histories, strict=True)):
        for name in ("reason", "failure", "best_epoch", "metric", "score", "notes", "every"):
            assert getattr(mine, name) == getattr(theirs, name), (k, name)
        np.testing.assert_allclose(mine.losses, theirs.losses, rtol=1e-11, atol=1e-13)
        assert len(mine.epochs) == len(theirs.epochs)
        for epoch, expected in zip(mine.epochs, theirs.epochs, strict=True):
            for name in ("epoch", "step", "train_loss", "train_score", "val_loss", "val_score"):
                a, b = getattr(epoch, name), getattr(expected, name)
                assert (a is None) == (b is None)
                assert a is None or a == pytest.approx(b, rel=1e-10), (k, name)
        assert list(mine.best_params) == list(theirs.best_params)
        if mine.reason == "failed":
            continue
        own, other = found[k].to_host(), whole[k].to_host()
        assert list(own) == list(other)
        for name in own:
            np.testing.assert_allclose(own[name], other[name], rtol=1e-9, atol=1e-12)


def same_bits(each: list[ModelSet]) -> None:
    """Assert that all ranks hold the same set."""
    for other in each[1:]:
        for k in other.succeeded:
            mine, theirs = other[k].to_host(), each[0][k].to_host()
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])
            past, course = other.histories[k].pack()
            first_past, first_course = each[0].histories[k].pack()
            assert course == first_course
            assert past.keys() == first_past.keys()
            for name in past:
                np.testing.assert_array_equal(past[name], first_past[name])


def check(ranks: int, work: Callable[[Group], ModelSet], whole: ModelSet) -> None:
    found = on_ranks(ranks, work)
    same_bits(found)
    for each in found:
        same(each, whole)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "grid, seeds, folds": (
        NETWORK, T, {"grid": GRID, "seeds": 2, "folds": 3, "epochs": 2, "batch_size": 30},
    ),
    "groups": (
        NETWORK, T,
        {"groups": np.arange(120) % 5, "seeds": 2, "epochs": 3, "batch_size": 7},
    ),
    "bootstrap": (
        xpnet.mlp([4, 5, 1], loss="squared"), VALUES,
        {"seeds": 5, "bootstrap": True, "epochs": 3, "batch_size": 32},
    ),
    "patience": (
        NETWORK, T,
        {"grid": GRID, "seeds": 2, "validation": 0.25, "patience": 2, "epochs": 6,
         "batch_size": 20, "metric": "f1"},
    ),
    "dropout, cut stacks": (
        xpnet.mlp([4, 8, 3], dropout=0.3), T,
        {"grid": {"clip_norm": [0.1, 1.0], "dropout": [0.1, 0.4]}, "seeds": 3, "at_once": 2,
         "epochs": 2, "batch_size": 32},
    ),
    "fewer models than ranks": (NETWORK, T, {"seeds": 2, "epochs": 2}),
}  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_models_are_those_of_one_process(case: tuple[Any, Any, dict[str, Any]], ranks: int) -> None:
    network, t, options = case
    whole = fit(network, (X, t), optim.Adam(0.01), **options)
    check(ranks, lambda g: fit(network, (X, t), optim.Adam(0.01), group=g, **options), whole)


def test_a_plateau_falls_for_each_model() -> None:
    options: Any = {"seeds": 3, "epochs": 6, "batch_size": 40, "validation": 0.2}
    rule = optim.SGD(optim.plateau(0.5, patience=1))
    whole = fit(NETWORK, (X, T), rule, **options)
    check(2, lambda g: fit(NETWORK, (X, T), rule, group=g, **options), whole)


@pytest.mark.filterwarnings("ignore:.*failed")
def test_failures_of_all_ranks_are_in_the_notes_of_each() -> None:
    network = xpnet.mlp([4, 8, 1], loss="squared")
    options: Any = {"grid": {"lr": [0.1, 1e9, 0.01, 1e8]}, "seeds": 2, "epochs": 3}
    whole = fit(network, (X, VALUES), optim.SGD(0.1), **options)
    assert len(whole.notes) == 4
    check(2, lambda g: fit(network, (X, VALUES), optim.SGD(0.1), group=g, **options), whole)


def test_what_trains_one_by_one_is_dealt_out(tmp_path: Path) -> None:
    options: Any = {"grid": {"lr": [0.1, 0.01], "dropout": [0.0, 0.5]}, "seeds": 1, "epochs": 2}
    options |= {"batch_size": 20, "validation": 0.2, "patience": 1}
    whole = fit(CNN, (IMAGES, LABELS), optim.Adam(0.01), **options)
    check(
        3,
        lambda g: fit(CNN, (IMAGES, LABELS), optim.Adam(0.01), group=g, folder=tmp_path, **options),
        whole,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"model-{k}" for k in range(4)]
    # Nothing is left to train, for any number of ranks.
    (again,) = on_ranks(
        1,
        lambda g: fit(
            CNN, (IMAGES, LABELS), optim.Adam(0.01), group=g, folder=tmp_path, resume=True,
            stop=lambda: pytest.fail("a step was computed"), **options,
        ),
    )  # fmt: skip
    same(again, whole)


# -- Callbacks -------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_halving_sees_all_models(ranks: int) -> None:
    rates = [1e-5, 0.1, 1e-4, 0.03, 1e-3, 0.01, 1e-6, 0.3]
    options: Any = {"grid": {"lr": rates}, "epochs": 6, "validation": 0.2, "batch_size": 25}
    options["callbacks"] = halving(every=2)
    whole = fit(NETWORK, (X, T), optim.SGD(0.1), **options)
    assert sorted(len(history.epochs) for history in whole.histories) == [2, 2, 2, 2, 4, 4, 6, 6]
    check(ranks, lambda g: fit(NETWORK, (X, T), optim.SGD(0.1), group=g, **options), whole)


def test_progress_is_that_of_one_process() -> None:
    """Of forms with other numbers of epochs and steps, and of a model that fails."""
    options: Any = {
        "grid": {"lr": [0.1, 1e300], "epochs": [1, 3], "batch_size": [16, 50]}, "seeds": 2,
        "validation": 0.2,
    }  # fmt: skip

    def seen(group: Any) -> list[Any]:
        calls: list[Any] = []

        def callback(progress: Progress) -> None:
            losses = [[e.train_loss for e in h.epochs] for h in progress.histories]
            steps = [h.losses for h in progress.histories]
            reasons = [(h.reason, h.best_epoch) for h in progress.histories]
            calls.append((progress.epoch, progress.live, losses, steps, reasons))

        options["group"] = group
        fit(NETWORK, (X, T), optim.SGD(0.1), callbacks=callback, **options)
        return calls

    with pytest.warns(RuntimeWarning, match="models of 16 failed"):
        (whole,) = on_ranks(1, seen)
    with pytest.warns(RuntimeWarning, match="models of 16 failed"):
        first, other, another = on_ranks(3, seen)
    assert (other, another) == ([], [])  # rank 0 alone calls it
    assert len(first) == len(whole) == 3
    for mine, theirs in zip(first, whole, strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[4] == theirs[4]
        for own, known in (
            *zip(mine[2], theirs[2], strict=True),
            *zip(mine[3], theirs[3], strict=True),
        ):
            np.testing.assert_allclose(own, known, rtol=1e-11)


def test_a_callback_that_raises_ends_all_ranks() -> None:
    def broken(progress: Progress) -> None:
        raise UsageError("enough")

    def work(group: Group) -> str:
        with pytest.raises(UsageError, match="enough") as raised:
            fit(NETWORK, (X, T), seeds=4, epochs=2, callbacks=broken, group=group)
        return str(raised.value)

    assert on_ranks(2, work) == ["enough", "enough"]


def test_ranks_that_have_nothing_to_say_wait_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without callbacks, stop and folder the ranks meet before the training and after it."""

    def meetings(epochs: int, **options: Any) -> int:
        def work(group: Any) -> int:
            count = 0
            exchange = group._exchange

            def counted(value: Any) -> Any:
                nonlocal count
                count += 1
                return exchange(value)

            group._exchange = counted
            fit(NETWORK, (X, T), seeds=4, epochs=epochs, group=group, **options)
            return count

        return int(on_ranks(2, work)[0])

    assert meetings(2) == meetings(6)
    assert meetings(6, stop=lambda: False) > meetings(2, stop=lambda: False)


# -- Stopping, and going on ------------------------------------------------------------


OPTIONS: Any = {
    "grid": GRID, "seeds": 3, "validation": 0.25, "patience": 2, "epochs": 6, "batch_size": 20,
}  # fmt: skip


def stopped(folder: Path, ranks: int, which: set[int], after: int, **options: Any) -> ModelSet:
    """Train on some ranks; some of them are told to stop after so many chunks."""

    def work(group: Group) -> ModelSet:
        calls = 0

        def stop() -> bool:
            nonlocal calls
            calls += 1
            return group.rank in which and calls == after

        return fit(
            NETWORK, (X, T), optim.Adam(0.01), folder=folder, stop=stop, group=group,
            **{**OPTIONS, **options},
        )  # fmt: skip

    found = on_ranks(ranks, work)
    same_bits(found)
    assert "stop" in {history.reason for history in found[0].histories}
    return found[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", [{0}, {1}, {0, 1}])
@pytest.mark.parametrize("then", [1, 2, 3])
def test_another_number_of_ranks_goes_on(tmp_path: Path, which: set[int], then: int) -> None:
    """One rank stops within an epoch, the others after it; or both within their epochs."""
    whole = fit(NETWORK, (X, T), optim.Adam(0.01), **OPTIONS)
    stopped(tmp_path / "run", 2, which, after=4)
    names = [path.name for path in (tmp_path / "run").iterdir()]
    assert len(names) == 2  # before the first step, and when they were stopped
    check(
        then,
        lambda g: fit(
            NETWORK, (X, T), optim.Adam(0.01), folder=tmp_path / "run", resume=True, group=g,
            **OPTIONS,
        ),
        whole,
    )  # fmt: skip


def test_the_same_number_of_ranks_reaches_the_same_bits(tmp_path: Path) -> None:
    (whole, _) = on_ranks(2, lambda g: fit(NETWORK, (X, T), optim.Adam(0.01), group=g, **OPTIONS))
    stopped(tmp_path, 2, {1}, after=7)
    found = on_ranks(
        2,
        lambda g: fit(
            NETWORK, (X, T), optim.Adam(0.01), folder=tmp_path, resume=True, group=g, **OPTIONS
        ),
    )
    for mine, theirs in zip(found[1], whole, strict=True):
        np.testing.assert_array_equal(mine.scores(X), theirs.scores(X))


def test_a_set_wanders_from_one_number_of_ranks_to_the_next(tmp_path: Path) -> None:
    """With dropout, cut stacks and rates of other kinds, and a checkpoint after each epoch."""
    options: Any = {
        "grid": {"lr": [0.1, 0.01], "dropout": [0.1, 0.4], "sizes": [[4, 3], [4, 8, 3]]},
        "seeds": 2, "at_once": 3, "save_seconds": 0.0, "callbacks": halving(3, 0.7),
    }  # fmt: skip
    network = xpnet.mlp([4, 6, 3], dropout=0.2)
    rule = optim.Nesterov(optim.plateau(0.1, patience=1))
    options = {**OPTIONS, "patience": None, **options}
    whole = fit(network, (X, T), rule, **{**options, "save_seconds": 60.0})
    for turn, ranks in enumerate((1, 3, 2, 4, 2, 1, 3)):
        calls = iter(range(1, 1000))

        def work(group: Group, turn: int = turn, calls: Any = calls) -> ModelSet:
            return fit(
                network, (X, T), rule, folder=tmp_path, resume=turn > 0, group=group,
                stop=lambda: next(calls) == 5, **options,
            )  # fmt: skip

        assert "stop" in {history.reason for history in on_ranks(ranks, work)[0].histories}
    found = on_ranks(
        2, lambda g: fit(network, (X, T), rule, folder=tmp_path, resume=True, group=g, **options)
    )
    same_bits(found)
    same(found[0], whole)


def test_rank_0_holds_the_folder_and_its_errors_are_those_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    on_ranks(2, lambda g: fit(NETWORK, (X, T), seeds=3, epochs=1, folder=folder, group=g))
    _, meta, _, _ = checkpoint.load_latest(folder)
    assert (meta["ranks"], meta["stacks"], meta["stack_ranks"]) == (2, [[0, 2], [1]], [0, 1])

    def refused(error: Any, match: str, **options: Any) -> Callable[[Group], None]:
        def work(group: Group) -> None:
            with pytest.raises(error, match=match):
                fit(NETWORK, (X, T), epochs=1, group=group, **options)

        return work

    on_ranks(2, refused(CheckpointError, "another run", seeds=3, folder=folder))
    on_ranks(2, refused(CheckpointError, "now there are 4", seeds=4, folder=folder, resume=True))
    (tmp_path / "file").touch()
    on_ranks(2, refused(OSError, "Not a directory", seeds=4, folder=tmp_path / "file" / "x"))
    with xpnet.files.locked(folder):
        on_ranks(2, refused(UsageError, "another process", seeds=3, folder=folder, resume=True))


def test_arguments_of_another_rank_are_refused() -> None:
    def work(group: Group) -> str:
        with pytest.raises((UsageError, RankError)) as raised:
            fit(NETWORK, (X, T), seeds=[group.rank, 5], epochs=1, group=group)
        return str(raised.value)

    assert {*on_ranks(2, work)} == {
        "rank 1 and rank 0 differ in models; start all ranks with the same data and the same "
        "settings"
    }
    with pytest.raises(UsageError, match=r"group is 2; expected xpnet.parallel.world"):
        fit(NETWORK, (X, T), group=2)


# -- The plan --------------------------------------------------------------------------


def test_the_plan_says_what_each_rank_trains() -> None:
    (found, _, _) = on_ranks(3, lambda g: plan(NETWORK, (X, T), seeds=7, epochs=1, group=g))
    assert found.ranks == [3, 2, 2]
    assert found.in_words()[-1] == "3 ranks, 2 to 3 models each"
    assert found.stacks == [(7, 7)]
    assert plan(NETWORK, (X, T), seeds=7, epochs=1).ranks == []


def test_every_rank_gets_models_of_each_form_and_the_rest_goes_to_the_idle() -> None:
    stacks = chunks.dealt([(range(5), 9, 10.0), (range(5, 8), 9, 1.0), ([8], 9, 1.0)], ranks=2)
    assert stacks == [(0, [0, 2, 4]), (1, [1, 3]), (1, [5, 7]), (0, [6]), (1, [8])]
    assert sorted(i for _, models in chunks.dealt([(range(50), 4, 1.0)], 3) for i in models) == [
        *range(50)
    ]


def test_arrays_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PIECE", 100)

    def work(group: Group) -> Any:
        own = {f"{group.rank}/{k}": np.full(k, group.rank, np.int8) for k in range(40 * group.rank)}
        all_of_them = sharing.gathered(own, group)
        none = sharing.gathered(own, group, keep=False)
        return all_of_them, none, sharing.from_first(own if group.rank else {"a": X}, group)

    for everything, nothing, first in on_ranks(3, work):
        assert len(everything) == 120
        assert all(v.shape == (int(n.split("/")[1]),) for n, v in everything.items())
        assert nothing == {}
        np.testing.assert_array_equal(first["a"], X)
        assert [*first] == ["a"]
