"""The settings of a run: what is printed is read back, whatever the values are."""

from __future__ import annotations

import random
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import optim
from xpnet.commands.config.defaults import schedule_of, settled
from xpnet.commands.config.parsing import parse
from xpnet.commands.config.settings import Config
from xpnet.commands.config.toml import to_toml
from xpnet.errors import UsageError
from xpnet.layers.activations import ACTIVATIONS
from xpnet.losses import LOSSES
from xpnet.optim import OPTIMIZERS

ODD = ["none", "-d", "--epochs", "-1", "--", "=", "a=b", "", " ", "a,b", "a_b-c", "'\"\\", "\t\r\n",
       "#", "[x]", "True", "日本 é", "\x7f\x01", "\U0001f600", "\ufeff", "$HOME"]  # fmt: skip


def text(rng: random.Random, alphabet: str = string.printable + "é日\x85\u2028") -> str:
    return rng.choice([*ODD, "".join(rng.choices(alphabet, k=rng.randint(1, 12)))])


def number(rng: random.Random, low: float, high: float) -> float:
    """Of any size, down to the smallest number above 0."""
    return min(high, max(low, rng.choice([rng.random(), 10.0 ** -rng.uniform(0, 323), 1 / 3, 0.1])))


def settings(rng: random.Random, folder: Path) -> Config:
    """Settings that parse() allows, of every kind."""
    sizes = tuple(rng.randint(1, 10**9) for _ in range(rng.randint(0, 4)))
    validated = rng.random() < 0.5
    loss = rng.choice(["auto", *LOSSES])
    images = rng.random() < 0.3
    activation = rng.choices([*ACTIVATIONS], k=rng.choice([1, max(1, len(sizes))]))
    filters = {}
    if images:
        activation = activation[:1]
        channels = rng.choice([(30,), ("16-16", 32), ("1-2-3",)])
        form = channels[0] if len(channels) == 1 else ",".join(map(str, channels))
        filters = {
            "channels": channels, "kernel": rng.choice([None, 5, form]),
            "padding": rng.choice([None, "same", 0, form]), "pool": rng.choice([None, 1, 3]),
            "augment": rng.choice([None, "flip", "shift=3", "shift=2,flip"]),
        }  # fmt: skip
    given = Config(
        model=rng.choice(["cnn", "deep-cnn"]) if images else "mlp",
        **filters,
        batch_norm=rng.random() < 0.5,
        device=text(rng),
        backend=rng.choice(["auto", "numpy", "jax"]),
        data=folder / "".join(c for c in text(rng) if c not in "/\0"),
        label_column=rng.choice([None, text(rng)]),
        task=rng.choice(["auto", "classification", "regression"]),
        standardize=rng.random() < 0.5,
        test_fraction=number(rng, 5e-324, 1 - 2**-53),
        val_fraction=number(rng, 5e-324, 1 - 2**-53) if validated else 0.0,
        hidden=sizes,
        activation=tuple(activation),
        loss=loss,
        quantile=number(rng, 5e-324, 1 - 2**-53) if loss == "quantile" else None,
        class_weight=rng.choice([None, "balanced"]),
        dropout=number(rng, 0.0, 1 - 2**-53),
        init=rng.choice(["he", "auto", number(rng, 0.0, 1e300)]),
        optimizer=rng.choice([*OPTIMIZERS]),
        lr=number(rng, 5e-324, 1.0),
        warmup=rng.randint(0, 10**9),
        schedule=rng.choice([None, "constant", "step", "cosine", "inverse", "plateau"]),
        weight_decay=number(rng, 0.0, 1.0),
        l1=number(rng, 0.0, 1.0),
        clip_norm=rng.choice([None, 1e308, number(rng, 5e-324, 1.0)]),
        epochs=rng.randint(1, 10**9),
        patience=rng.randint(1, 99) if validated else None,
        target_acc=rng.choice([None, number(rng, 0.0, 1.0)]),
        seed=rng.randint(0, 10**9),
    )
    return replace(given, test_data=given.data)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_what_is_printed_is_read_back(tmp_path: Path, encoding: str) -> None:
    rng, file = random.Random(0), tmp_path / "c.toml"
    for _ in range(40):
        given = settings(rng, tmp_path)
        file.write_bytes(to_toml(given, encoding).encode(encoding))
        assert replace(parse(["--config", str(file)]), config=None) == given


def test_schedules_over_a_run() -> None:
    """Where each schedule begins and ends, in a run of 1000 steps."""
    ends = {"constant": 0.2, "step": 0.002, "exponential": 0.002, "cosine": 0.0, "inverse": 0.02}
    for name, end in ends.items():
        config = settled(parse(["--optimizer", "sgd", "--lr", "0.2", "--schedule", name]), 100)
        rate: Any = schedule_of(config, 1000)
        found = [rate(np.asarray(k)) if callable(rate) else rate for k in (0.0, 1000.0)]
        assert found == pytest.approx([0.2, end], abs=1e-4)


@pytest.mark.parametrize(("patience", "expected"), [(None, 5), (20, 5), (9, 4), (3, 1), (1, 1)])
def test_a_plateau_waits_less_than_the_run(patience: int | None, expected: int) -> None:
    """At least one fall before --patience ends the run, if there is room for one."""
    words = ["--schedule", "plateau", "--lr", "0.2", "--warmup", "7", "--val-fraction", "0.1"]
    words += [] if patience is None else ["--patience", str(patience)]
    found = schedule_of(settled(parse(words), 100), 1000)
    assert found == optim.plateau(0.2, patience=expected, warmup=7)


@pytest.mark.parametrize("word", ["-1", "nan", "inf", "x", "0.1,-1"])
def test_l1_is_0_or_more(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((UsageError, SystemExit)) as caught:
        parse([f"--l1={word}"])
    said = str(caught.value) + capsys.readouterr().err
    assert "--l1" in said or "l1" in said


@pytest.mark.parametrize("word", ["none", "-d", "-1", "a b", "=", "é"])
def test_a_label_column_may_have_any_name(word: str) -> None:
    assert parse(["--data", "d.csv", f"--label-column={word}"]).label_column == word


def test_help_does_not_say_that_none_stands_for_the_last_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    words = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "by name or number. (default: the last one)" in words


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127 + "x"])
def test_names_of_255_bytes(in_tmp: Path, name: str) -> None:
    from xpnet.commands import explain, predict, train

    data = Path(f"{name[:120]}.csv")
    data.write_text("".join(f"{i},{i % 7},{i % 2}\n" for i in range(40)))
    quick = ["--epochs", "1", "--quiet", "--device", "cpu"]
    assert train.main(["--data", str(data), *quick, "--out", name]) == 0
    assert train.main(["--resume", name, "--quiet", "--epochs", "2"]) == 0
    assert train.main(["--data", str(data), *quick]) == 0
    cut = name.encode()[: 255 - 4].decode(errors="ignore")
    assert predict.main([name, str(data), "--out", f"{cut}.txt"]) == 0
    assert explain.main(["--inputs", "3", "--out", f"{cut}.md", "--draw", f"{cut}.svg"]) == 0
    assert len(Path(f"{cut}.txt").read_text().splitlines()) == 41
    for longer in (["--out", f"{name}y"], ["--data", f"{name}y"], ["--config", f"{name}y"]):
        assert train.main([*quick, *longer]) in (1, 2)


@pytest.mark.parametrize(
    "line",
    [r'loss = "\u001b[2J"', r'loss = ["a\nb"]', r'"\u001b[2J" = 1', r'epochs = "\u202e"'],
)
def test_what_a_file_says_reaches_no_terminal(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.toml").write_text(line)
    with pytest.raises(UsageError, match=r"printable text|unknown key") as caught:
        parse(["--config", str(tmp_path / "c.toml")])
    assert str(caught.value).isprintable()
