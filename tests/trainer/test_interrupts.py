"""Ctrl-C inside `fit`, at random moments: nothing is lost and nothing is half-done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.trainer import train_epoch
from xpnet.trainer.interrupts import held_signals

X = np.random.default_rng(0).standard_normal((256, 8))
T = (X.sum(axis=1) > 0).astype(int)


def in_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")


def test_an_interrupt_at_any_moment_leaves_a_model_that_goes_on(backend: Backend) -> None:
    in_main_thread()
    trainer = xpnet.Trainer(xpnet.mlp([8, 16, 2], dropout=0.1), optim.Adam(0.01), backend=backend)
    trainer.fit(X, T, epochs=1, batch_size=16)  # what is compiled, is compiled
    moments, interrupted = np.random.default_rng(1).uniform(0.001, 0.03, 50), 0
    for seconds in moments:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            trainer.fit(X, T, epochs=10_000, batch_size=16)
        except KeyboardInterrupt:
            interrupted += 1
        params = trainer.model.to_host()  # on JAX, a donated array would raise
        assert all(np.isfinite(p).all() for p in params.values())
        assert int(trainer.backend.to_numpy(trainer.state["step"])) >= 16
    assert interrupted == len(moments)
    assert trainer.fit(X, T, epochs=1, batch_size=16).reason == "epochs"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_handlers_that_raise_are_called_between_steps(number: int, backend: Backend) -> None:
    """As that of a time limit, in the middle of a step."""
    in_main_thread()

    class TooLong(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise TooLong

    trainer = xpnet.Trainer(xpnet.mlp([8, 16, 2]), optim.Adam(0.01), backend=backend, scaling=None)
    run, given = trainer.run, []

    def signalled(*args: Any) -> Iterator[Any]:
        for chunk in run(*args):
            given.append(chunk)
            signal.raise_signal(number)  # before the results are stored
            yield chunk

    trainer.run = signalled
    before = signal.signal(number, handler)
    try:
        with pytest.raises(TooLong):
            trainer.fit(X, T, epochs=3, batch_size=16)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    (params, state, losses), *rest = given
    assert not rest
    assert int(trainer.backend.to_numpy(trainer.state["step"])) == losses.shape[0]
    assert all(trainer.params[name] is p for name, p in params.items())
    assert all(trainer.state[name] is s for name, s in state.items())
    trainer.run = run
    assert trainer.fit(X, T, epochs=1, batch_size=16).reason == "epochs"


def test_an_error_in_a_step_leaves_what_was_before(backend: Backend) -> None:
    """An update consumes parameter by parameter: one that fails halfway has consumed some."""
    trainer = xpnet.Trainer(xpnet.mlp([8, 16, 2]), optim.Adam(0.01), backend=backend)
    trainer.fit(X, T, epochs=1, batch_size=16)
    before = trainer.model.to_host()
    run = trainer.run

    def failing(params: dict[str, Any], state: dict[str, Any], *data: Any) -> Iterator[Any]:
        for _ in run(params, state, *data):
            raise MemoryError

    trainer.run = failing
    with pytest.raises(MemoryError):
        trainer.fit(X, T, epochs=1, batch_size=16)
    for name, value in trainer.model.to_host().items():
        np.testing.assert_array_equal(value, before[name])
    trainer.run = run
    assert trainer.fit(X, T, epochs=1, batch_size=16).reason == "epochs"


def test_a_second_interrupt_is_not_held() -> None:
    in_main_thread()

    def interrupted_twice() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second was held too")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_after_the_last_step_is_not_lost() -> None:
    in_main_thread()
    done: list[bool] = []

    def interrupted() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done


def test_a_handler_may_put_another_in_its_place() -> None:
    """As the command line's does: a second Ctrl-C ends the process."""
    in_main_thread()
    calls: list[int] = []

    def once(number: int, frame: Any) -> None:
        calls.append(number)
        signal.signal(number, signal.SIG_IGN)

    before = signal.signal(signal.SIGINT, once)
    try:
        with held_signals() as deliver:
            signal.raise_signal(signal.SIGINT)
            assert not calls
            deliver()
            assert calls == [signal.SIGINT]
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert calls == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_chunks_of_epochs_are_those_of_fit(backend: Backend) -> None:
    """The public loop, by hand, against the trainer that is its first user."""
    trainers = [
        xpnet.Trainer(
            xpnet.mlp([8, 5, 2]), optim.Momentum(0.1), backend=backend, scaling=None, seed=3
        )
        for _ in range(2)
    ]
    fitted, by_hand = trainers
    history = fitted.fit(X, T, epochs=2, batch_size=30)
    data = tuple(map(backend.asarray, (X.astype(np.float32), T.astype(np.int32))))
    losses: list[float] = []
    params, state = by_hand.params, by_hand.state
    for epoch in range(2):
        chunks = train_epoch(
            by_hand.run, by_hand.feed, data, params, state, batch_size=30, seed=3, epoch=epoch
        )
        for chunk in chunks:
            params, state, found = chunk
            losses += backend.to_numpy(found).tolist()
    assert losses == history.losses
    for name, value in params.items():
        np.testing.assert_array_equal(backend.to_numpy(value), fitted.model.to_host()[name])


def test_chunks_go_on_where_an_epoch_was_left() -> None:
    trainer = xpnet.Trainer(xpnet.mlp([8, 2]))
    data = (X.astype(np.float32), T.astype(np.int32))

    def losses(done: int) -> int:
        chunks = train_epoch(
            trainer.run, trainer.feed, data, trainer.params, trainer.state,
            batch_size=100, done=done,
        )  # fmt: skip
        return sum(len(found) for _, _, found in chunks)

    assert [losses(done) for done in range(4)] == [3, 2, 1, 0]
