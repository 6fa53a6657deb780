"""Sets of models against the trainings that each model would have alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.many import Member, Progress, halving, plan
from xpnet.many.members import Training
from xpnet.many.parts import folds_of
from xpnet.many.planning import prepare_set
from xpnet.many.stack import Stack

N = 203
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 5)) * 3.0 + 2.0
T = (X[:, 0] + X[:, 1] * X[:, 2] > 3.0).astype(int) + (X[:, 3] > 2.0)
VALUES = (np.sin(X[:, 0]) + X[:, 1])[:, None]
OPTIONS: dict[str, Any] = {"dtype": "float64"}


def trainer(network: Any, member: Member, backend: Any = None, **options: Any) -> xpnet.Trainer:
    """A trainer of one model; a network built by `mlp` is drawn anew from its seed."""
    seeded = xpnet.mlp(**{**network.arguments, "seed": member.seed})
    return xpnet.Trainer(seeded, seed=member.seed, backend=backend, dtype="float64", **options)


def difference(models: xpnet.ModelSet, k: int, alone: xpnet.Trainer) -> float:
    """The largest difference in losses, scores and weights between a model and its own training."""
    history, own = models.histories[k], alone.history
    assert own is not None
    assert (history.reason, history.best_epoch) == (own.reason, own.best_epoch)
    assert len(history.epochs) == len(own.epochs)
    differences = [np.abs(np.array(history.losses) - np.array(own.losses)).max()]
    for mine, theirs in zip(history.epochs, own.epochs, strict=True):
        assert (mine.epoch, mine.step) == (theirs.epoch, theirs.step)
        for name in ("train_loss", "val_loss", "val_score", "val_metric"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert (a is None) == (b is None)
            differences.append(0.0 if a is None else abs(a - b))
    last = history.epochs[-1].train_score, own.epochs[-1].train_score
    if last[0] is not None and last[1] is not None:
        differences.append(abs(last[0] - last[1]))
    mine, theirs = models[k].to_host(), alone.model.to_host()
    assert list(mine) == list(theirs)
    differences += [np.abs(mine[name] - theirs[name]).max() for name in mine]
    differences.append(np.abs(models[k].scores(X) - alone.scores(X)).max())
    return float(max(differences))


def check(models: xpnet.ModelSet, alone: Callable[[Member], xpnet.Trainer]) -> None:
    worst = max(difference(models, m.index, alone(m)) for m in models.members)
    # 1e-10 is promised; NumPy sums a stack's slices as it sums a matrix.
    assert worst < 1e-10


@pytest.mark.filterwarnings("ignore:no better than guessing")
def test_a_grid_follows_its_trainings(backend: Any) -> None:
    """200 steps with Adam, dropout, weight decay and clipped gradients, all of them in the grid."""
    network = xpnet.mlp([5, 8, 3], "sigmoid", dropout=0.2)
    grid = {
        "lr": [0.1, 0.01], "beta1": [0.9, 0.5], "weight_decay": [0.0, 0.1], "dropout": [0.1, 0.3],
        "clip_norm": [0.5, 5.0], "l1": [0.0, 0.01],
    }  # fmt: skip
    models = xpnet.fit_many(
        network, (X, T), optim.Adam(0.01), grid=grid, seeds=[3], epochs=40, batch_size=50,
        backend=backend, **OPTIONS,
    )  # fmt: skip
    assert len(models) == 64

    def alone(m: Member) -> xpnet.Trainer:
        s = dict(m.settings)
        drawn = xpnet.mlp([5, 8, 3], "sigmoid", dropout=s["dropout"])
        made = trainer(
            drawn, m, backend, optimizer=optim.Adam(s["lr"], beta1=s["beta1"]),
            weight_decay=s["weight_decay"], l1=s["l1"], clip_norm=s["clip_norm"],
        )  # fmt: skip
        made.fit(X, T, epochs=40, batch_size=50)
        return made

    chosen = [0, 11, 20, 39, 63]
    worst = max(difference(models, k, alone(models.members[k])) for k in chosen)
    assert worst < 1e-10


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(0.1), optim.Momentum(0.1), optim.Nesterov(0.1), optim.AdaGrad(0.1),
        optim.RMSProp(0.01), optim.Adam(0.01), optim.AdamW(0.01, 0.1),
        optim.AdamW(optim.cosine(0.01, 20, warmup=3)), optim.SGD(optim.step_decay(0.1, 7)),
        optim.Momentum(optim.exponential(0.1, 30)), optim.SGD(optim.constant(0.1, warmup=5)),
        optim.Nesterov(optim.inverse_time(0.1, 0.2)),
    ],
    ids=repr,
)  # fmt: skip
def test_every_optimizer_and_schedule(optimizer: Any) -> None:
    models = xpnet.fit_many(
        xpnet.mlp([5, 8, 3]), (X, T), optimizer, grid={"lr": [0.03, 0.01]}, seeds=2, epochs=3,
        batch_size=50, **OPTIONS,
    )  # fmt: skip

    def alone(m: Member) -> xpnet.Trainer:
        rule = optimizer
        if callable(rule.lr):
            lr = m.settings["lr"]
            schedule: Any = {
                "AdamW": optim.cosine(lr, 20, warmup=3), "Momentum": optim.exponential(lr, 30),
                "Nesterov": optim.inverse_time(lr, 0.2),
            }.get(type(rule).__name__)  # fmt: skip
            if schedule is None:
                step = type(rule.lr).__name__ == "_StepDecay"
                schedule = optim.step_decay(lr, 7) if step else optim.constant(lr, warmup=5)
            rule = type(rule)(schedule)
        elif isinstance(rule, optim.AdamW):
            rule = optim.AdamW(m.settings["lr"], 0.1)
        else:
            rule = type(rule)(m.settings["lr"])
        made = trainer(xpnet.mlp([5, 8, 3]), m, optimizer=rule)
        made.fit(X, T, epochs=3, batch_size=50)
        return made

    check(models, alone)


def test_the_defaults_with_early_stopping_and_a_share_for_validation() -> None:
    """Models end at other epochs, and leave the arrays when half have ended."""
    network = xpnet.mlp([5, 8, 3])
    models = xpnet.fit_many(
        network, (X, T), grid={"lr": [0.1, 0.03, 0.01]}, seeds=3, patience=2, validation=0.2,
        metric="f1", **OPTIONS,
    )  # fmt: skip
    ended = {len(history.epochs) for history in models.histories}
    assert len(ended) > 3
    assert models.score_name == "f1"

    def alone(m: Member) -> xpnet.Trainer:
        made = trainer(network, m, lr=m.settings["lr"])
        made.fit(X, T, patience=2, validation=0.2, metric="f1")
        return made

    check(models, alone)


def test_folds() -> None:
    """203 samples in five folds: two sizes, with batches of other lengths, in one stack."""
    network = xpnet.mlp([5, 8, 3])
    arguments: Any = {"folds": 5, "epochs": 5, "batch_size": 32, "clip_norm": 0.5}
    found = plan(network, (X, T), optim.Momentum(0.1), **arguments, **OPTIONS)
    assert found.stacks == [(5, 5)]
    models = xpnet.fit_many(network, (X, T), optim.Momentum(0.1), **arguments, **OPTIONS)
    folds = folds_of(5, T, True)
    assert np.array_equal(np.sort(np.concatenate([f.held for f in folds])), np.arange(N))

    def alone(m: Member) -> xpnet.Trainer:
        rows = folds[m.fold or 0]
        made = trainer(network, m, optimizer=optim.Momentum(0.1), clip_norm=0.5)
        held = X[rows.held], T[rows.held]
        made.fit(X[rows.train], T[rows.train], batch_size=32, epochs=5, validation=held)
        return made

    check(models, alone)
    (row,) = models.table()
    scores = [history.epochs[-1].val_score for history in models.histories]
    assert row["mean"] == pytest.approx(np.mean(scores))
    assert row["deviation"] == pytest.approx(np.std(scores, ddof=1))


def test_folds_are_those_of_scikit_learn() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    splits = list(selection.StratifiedKFold(4).split(X, T))
    models = xpnet.fit_many(xpnet.mlp([5, 3]), (X, T), folds=splits, epochs=2, **OPTIONS)
    model = trainer(xpnet.mlp([5, 3]), models.members[2])
    train, held = splits[2]
    model.fit(X[train], T[train], epochs=2, validation=(X[held], T[held]))
    assert difference(models, 2, model) < 1e-12


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_a_model_for_each_group(weights: str | None) -> None:
    """Groups of other sizes: their last batches are filled with samples of weight 0."""
    groups = np.array(["north", "south", "west"])[np.arange(N) % 3]
    network = xpnet.mlp([5, 8, 3], dropout=0.3)
    models = xpnet.fit_many(
        network, (X, T), groups=groups, epochs=4, batch_size=16, class_weight=weights, **OPTIONS
    )
    assert [m.group for m in models.members] == ["north", "south", "west"]
    assert plan(network, (X, T), groups=groups, epochs=4, batch_size=16).stacks == [(3, 3)]

    def alone(m: Member) -> xpnet.Trainer:
        own = groups == m.group
        made = trainer(network, m)
        made.fit(X[own], T[own], epochs=4, batch_size=16, class_weight=weights)
        return made

    check(models, alone)


def test_weights_of_each_model_make_a_bootstrap() -> None:
    """A sample that was drawn twice counts twice, and one that was not drawn does not count."""
    network = xpnet.mlp([5, 8, 1], loss="squared")
    models = xpnet.fit_many(
        network, (X, VALUES), optim.SGD(0.1), seeds=3, bootstrap=True, epochs=1, batch_size=N,
        **OPTIONS,
    )  # fmt: skip
    for m in models.members:
        drawn = np.random.default_rng((m.seed, 5)).integers(0, N, N)
        made = trainer(
            network, m, optimizer=optim.SGD(0.1), scaling=models[m.index].feed.scaling,
            target_scaling=models[m.index].feed.target_scaling,
        )  # fmt: skip
        made.fit(X[drawn], VALUES[drawn], epochs=1, batch_size=N)  # one batch: order is nothing
        assert np.abs(made.scores(X) - models[m.index].scores(X)).max() < 1e-12


def test_one_set_of_samples_serves_all_bootstraps_and_stacks() -> None:
    """Memory: the samples are on the device once, whatever the number of models."""
    made = prepare_set(
        xpnet.mlp([5, 3]), (X, T), Training(epochs=1), seeds=4, bootstrap=True, **OPTIONS
    )
    (chosen,) = made.stacks
    shared: dict[Any, Any] = {}
    stacks = [
        Stack(chosen[:3], made.parts, shared),
        Stack(chosen[3:], made.parts, shared),
    ]
    for stack in stacks:
        list(stack.epoch(0))
    (x, t, weights), others = (stack._data for stack in stacks)
    assert (x.shape, t.shape, weights.shape) == ((N, 5), (N,), (3, N))
    assert others[0] is x


def test_sample_weights_and_bytes() -> None:
    images = np.random.default_rng(1).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    t = (images.mean(axis=(1, 2)) > 127).astype(int)
    weight = np.linspace(0.5, 2.0, 60)
    network = xpnet.mlp([16, 6, 2])
    models = xpnet.fit_many(
        network, (images, t), seeds=2, epochs=2, sample_weight=weight, validation=0.25, **OPTIONS
    )
    for m in models.members:
        made = trainer(network, m)
        made.fit(images, t, epochs=2, sample_weight=weight, validation=0.25)
        np.testing.assert_allclose(models[m.index].scores(images), made.scores(images), rtol=1e-12)


def test_networks_of_other_forms_and_counts_of_epochs() -> None:
    networks = [xpnet.mlp([5, 4, 3]), xpnet.mlp([5, 7, 7, 3], "tanh"), xpnet.mlp([5, 4, 3], seed=9)]
    arguments: Any = {"grid": {"epochs": [1, 3], "batch_size": [20, 50]}}
    found = plan(networks, (X, T), optim.SGD(0.1), **arguments)
    assert (found.models, found.stacks, found.one_by_one) == (12, [(2, 2)] * 4 + [(1, 1)] * 4, {})
    models = xpnet.fit_many(networks, (X, T), optim.SGD(0.1), **arguments, **OPTIONS)
    for m in models.members:
        made = xpnet.Trainer(networks[m.network], optim.SGD(0.1), dtype="float64")
        made.fit(X, T, **m.settings)
        assert difference(models, m.index, made) < 1e-12
    assert {tuple(sorted(row["settings"])) for row in models.table()} == {
        ("batch_size", "epochs", "network")
    }


def test_stacks_are_cut() -> None:
    arguments: Any = {"seeds": 7, "epochs": 2, "at_once": 3}
    found = plan(xpnet.mlp([5, 4, 3]), (X, T), **arguments)
    assert found.stacks == [(7, 3)]
    assert "7 models of one form, 3 at once" in found.in_words()
    cut = xpnet.fit_many(xpnet.mlp([5, 4, 3]), (X, T), **arguments, **OPTIONS)
    whole = xpnet.fit_many(xpnet.mlp([5, 4, 3]), (X, T), seeds=7, epochs=2, **OPTIONS)
    for k in range(7):
        np.testing.assert_allclose(cut[k].scores(X), whole[k].scores(X), rtol=1e-13)


# -- Models that end early, or fail ----------------------------------------------------


def test_only_the_model_that_becomes_nan_ends() -> None:
    rates = [0.1, 1e9, 0.01]
    with pytest.warns(RuntimeWarning, match=r"1 model of 3 failed: model 1 \(lr 1e\+09, seed 0\)"):
        models = xpnet.fit_many(
            xpnet.mlp([5, 8, 1], loss="squared"), (X, VALUES), optim.SGD(0.1), grid={"lr": rates},
            epochs=3, **OPTIONS,
        )  # fmt: skip
    assert [history.reason for history in models.histories] == ["epochs", "failed", "epochs"]
    assert "epoch 1, step" in models.histories[1].failure
    assert models.histories[1].failure in models.notes
    assert np.isnan(models.scores[1])
    assert models.best_index == 0
    assert models.succeeded == [0, 2]
    assert len(models.ensemble()) == 2
    with pytest.raises(xpnet.errors.UsageError, match=r"model 1 .* ended"):
        list(models)
    with pytest.raises(xpnet.errors.UsageError, match=r"model 1 .* try a smaller learning rate"):
        models[1]
    for k in (0, 2):
        made = trainer(models[k].network, models.members[k], optimizer=optim.SGD(rates[k]))
        made.fit(X, VALUES, epochs=3)
        assert difference(models, k, made) < 1e-12


@pytest.mark.filterwarnings("ignore:.*failed")
def test_a_set_of_failures_has_no_best() -> None:
    models = xpnet.fit_many(
        xpnet.mlp([5, 1], loss="squared"), (X, VALUES), optim.SGD(1e9), seeds=2, epochs=2
    )
    assert "failed" in str(models)
    with pytest.raises(xpnet.errors.UsageError, match="no model has a score: model 0"):
        models.best()
    with pytest.raises(xpnet.errors.UsageError, match="an ensemble of no models"):
        models.ensemble()


def test_halving_drops_the_worst_and_leaves_the_others_alone() -> None:
    rates = [1e-5, 0.1, 1e-4, 0.03, 1e-3, 0.01, 1e-6, 0.3]
    arguments: Any = {"grid": {"lr": rates}, "epochs": 6, "validation": 0.2}
    models = xpnet.fit_many(
        xpnet.mlp([5, 8, 3]), (X, T), optim.SGD(0.1), callbacks=halving(every=2), **arguments,
        **OPTIONS,
    )  # fmt: skip
    lengths = [len(history.epochs) for history in models.histories]
    assert sorted(lengths) == [2, 2, 2, 2, 4, 4, 6, 6]
    whole = xpnet.fit_many(xpnet.mlp([5, 8, 3]), (X, T), optim.SGD(0.1), **arguments, **OPTIONS)
    after = [history.epochs[1].val_loss for history in whole.histories]
    assert {k for k in range(8) if lengths[k] > 2} == {*np.argsort(after)[:4].tolist()}
    for k in range(8):
        assert (
            models.histories[k].losses
            == whole.histories[k].losses[: len(models.histories[k].losses)]
        )
        reason = "epochs" if lengths[k] == 6 else "callback"
        assert models.histories[k].reason == reason


def test_a_callback_may_end_all_and_must_name_models() -> None:
    seen: list[Progress] = []

    def callback(progress: Progress) -> Any:
        seen.append(progress)
        return progress.epoch == 2

    arguments: Any = {"seeds": 3, "epochs": 5}
    models = xpnet.fit_many(xpnet.mlp([5, 3]), (X, T), callbacks=callback, **arguments)
    assert [len(history.epochs) for history in models.histories] == [2, 2, 2]
    assert [progress.live for progress in seen] == [[0, 1, 2]] * 2
    with pytest.raises(xpnet.errors.UsageError, match="a callback returned 7; expected True"):
        xpnet.fit_many(xpnet.mlp([5, 3]), (X, T), callbacks=lambda progress: 7, **arguments)


# -- What cannot be stacked ------------------------------------------------------------


class Noisy:
    """A rule of one's own, which may look at a parameter as a whole."""

    lr, slots = 0.1, ()

    def rule(self, p: Any, g: Any, lr: Any) -> Any:
        return (p - lr * g / (1.0 + np.abs(g).max()),)


def test_other_rules_train_one_by_one_and_say_so() -> None:
    models = xpnet.fit_many(xpnet.mlp([5, 4, 3]), (X, T), Noisy(), seeds=2, epochs=2, **OPTIONS)
    assert models.notes == ["2 models trained one by one: Noisy is no optimizer of xpnet.optim"]
    for m in models.members:
        made = trainer(xpnet.mlp([5, 4, 3]), m, optimizer=Noisy())
        made.fit(X, T, epochs=2)
        np.testing.assert_array_equal(made.scores(X), models[m.index].scores(X))


def test_networks_built_by_hand() -> None:
    """Affine layers, activations and a loss are stacked; another gate is not."""
    from xpnet.functions import affine, relu, softmax_with_loss

    def built(more: bool) -> xpnet.Network:
        graph = xpnet.Graph()
        x, t, W, b = graph.inputs("x t W b")
        scores = affine(x, W, b)
        if more:
            scores = scores + x[:, :3]
        params = {"W": np.random.default_rng(5).standard_normal((5, 3)), "b": np.zeros(3)}
        return xpnet.Network(
            graph, params, relu(scores), softmax_with_loss(relu(scores), t), outputs=3
        )

    for more in (False, True):
        found = plan(built(more), (X, T), optim.SGD(0.1), seeds=2, epochs=2)
        assert bool(found.one_by_one) is more
        models = xpnet.fit_many(built(more), (X, T), optim.SGD(0.1), seeds=2, epochs=2, **OPTIONS)
        made = xpnet.Trainer(built(more), optim.SGD(0.1), seed=1, dtype="float64")
        made.fit(X, T, epochs=2)
        np.testing.assert_allclose(made.scores(X), models[1].scores(X), rtol=1e-12)


# -- Frames and text -------------------------------------------------------------------


def test_frames_text_labels_and_their_weights() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"a": X[:, 0], "kind": np.array(["u", "v"])[(X[:, 3] > 2).astype(int)]}
    )
    labels = np.array(["low", "mid", "high"])[T].tolist()
    width = xpnet.data.Encoder.of(frame).width
    models = xpnet.fit_many(
        xpnet.mlp([width, 6, 3]), (frame, labels), seeds=2, epochs=3, folds=None,
        class_weight={"low": 2.0}, validation=0.2,
    )  # fmt: skip
    assert set(models.best().predict(frame)) <= {"low", "mid", "high"}
    assert models.ensemble().predict(frame)[0] in {"low", "mid", "high"}
    assert models[0].columns == xpnet.data.Encoder.of(frame).names


# -- What a set must not mix up --------------------------------------------------------


def test_losses_that_treat_targets_differently_share_no_targets() -> None:
    """One scales the targets of a regression, the other must not: each network has its own."""
    counts = np.random.default_rng(3).poisson(4.0, (N, 1)).astype(float)
    networks = [xpnet.mlp([5, 6, 1], loss=loss) for loss in ("squared", "poisson", "huber")]
    models = xpnet.fit_many(networks, (X, counts), optim.Adam(0.01), epochs=3, seeds=2, **OPTIONS)
    for m in models.members:
        made = trainer(networks[m.network], m, optimizer=optim.Adam(0.01))
        made.fit(X, counts, epochs=3)
        assert difference(models, m.index, made) < 1e-12
    with pytest.raises(
        xpnet.errors.UsageError, match=r"predicts values.*predicts classes.*two sets"
    ):
        xpnet.fit_many([xpnet.mlp([5, 1], loss="sigmoid"), networks[0]], (X, (T > 0) * 1))


@pytest.mark.parametrize("ended", ["patience", "callback"])
def test_a_bootstrap_of_which_one_model_is_left(ended: str) -> None:
    """A single model trains by the ordinary step, with weights of one axis."""
    more: Any = {"callbacks": halving(1)}
    if ended == "patience":
        more = {"patience": 1, "optimizer": optim.Adam(0.1)}
    models = xpnet.fit_many(
        xpnet.mlp([5, 8, 3]), (X, T), seeds=4, bootstrap=True, epochs=12, validation=(X, T), **more
    )
    assert len({len(history.epochs) for history in models.histories}) > 1


def test_no_training_score_stands_for_one_that_is_not_defined() -> None:
    """R² of one sample, ROC AUC of one class."""
    few = X[:6], VALUES[:6]
    models = xpnet.fit_many(xpnet.mlp([5, 4, 1], loss="squared"), few, folds=6, epochs=2)
    assert np.isnan(models.scores).all()
    assert "r2 is not defined for 6 models" in models.notes[-1]
    one_class = X[T == 0], np.zeros(np.sum(T == 0), int)
    with np.errstate(all="ignore"):
        models = xpnet.fit_many(
            xpnet.mlp([5, 3]), (X, T), epochs=2, validation=one_class, metric="roc_auc"
        )
    assert np.isnan(models.scores).all()
    assert "-" in str(models).splitlines()[-1].split()


def test_weights_of_your_own_stay() -> None:
    drawn = xpnet.mlp([5, 4, 3])
    own = {name: np.full(p.shape, 0.123) for name, p in drawn.params.items()}
    network = xpnet.mlp([5, 4, 3], params=own)
    still = optim.SGD(1e-30)
    for more in ({"grid": {"dropout": [0.0, 0.5]}}, {"seeds": 2}, {"grid": {"lr": [1e-30, 2e-30]}}):
        models = xpnet.fit_many(network, (X, T), still, epochs=1, **more)  # type: ignore[arg-type]
        for model in models:
            assert np.all(model.to_host()["W1"] == np.float32(0.123))


def test_callbacks_see_every_epoch_and_may_answer_with_a_generator() -> None:
    seen: list[int] = []

    def callback(progress: Progress) -> Any:
        seen.append(progress.epoch)
        return (k for k in progress.live[1:]) if progress.epoch == 2 else None

    models = xpnet.fit_many(xpnet.mlp([5, 3]), (X, T), seeds=3, epochs=4, callbacks=callback)
    assert seen == [1, 2, 3, 4]
    assert [len(history.epochs) for history in models.histories] == [4, 2, 2]
    for wrong in ([True, False, False], [[0]], "01", [7], [-1], np.array([True, False, False])):
        with pytest.raises(xpnet.errors.UsageError, match="a callback returned"):
            xpnet.fit_many(
                xpnet.mlp([5, 3]), (X, T), seeds=3, epochs=2, callbacks=lambda p, w=wrong: w
            )
    models = xpnet.fit_many(
        xpnet.mlp([5, 3]), (X, T), Noisy(), seeds=2, epochs=1, callbacks=halving(1)
    )
    assert models.notes[-1] == "callbacks see the models that train one by one each by itself"
