"""Ctrl-C inside `fit`, at random moments: nothing is lost and nothing is half-done."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.trainer import train_epoch
from xpnet.trainer.interrupts import held_interrupts

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


def test_a_second_interrupt_is_not_held() -> None:
    in_main_thread()

    def interrupted_twice() -> None:
        with held_interrupts() as seen:
            signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second was held too")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_after_the_last_step_is_not_lost() -> None:
    in_main_thread()
    done: list[bool] = []

    def interrupted() -> None:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done


def test_a_handler_of_the_user_s_own_stays() -> None:
    in_main_thread()
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with held_interrupts() as seen:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        assert calls == [signal.SIGINT]
        assert not seen
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_chunks_of_epochs_are_those_of_fit(backend: Backend) -> None:
    """The public loop, by hand, against the trainer that is its first user."""
    trainers = [
        xpnet.Trainer(xpnet.mlp([8, 5, 2]), optim.Momentum(0.1), backend=backend, seed=3)
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
