"""Wrong words on the command line, and the help: held against tyro, which reads the words."""

from __future__ import annotations

import contextlib
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import tyro

from xpnet.commands import compare, explain, gradcheck, predict
from xpnet.commands.config.settings import Config
from xpnet.commands.options import Option, options_of
from xpnet.commands.suggest import ADVICE, ELSEWHERE, SHORT, suggest, wants_help
from xpnet.commands.usage import help_text, read
from xpnet.errors import UsageError

TRAIN = options_of(Config)
COMMANDS: list[type] = [
    Config, predict.Arguments, explain.Arguments, gradcheck.Arguments, compare.Arguments,
]  # fmt: skip


def of_train(line: str) -> str | None:
    return suggest(line.split(), TRAIN)


# -- Advice --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("--learning-rate 0.1", "unknown option --learning-rate; did you mean --lr?"),
        ("--learning_rate=0.1", "unknown option --learning_rate; did you mean --lr?"),
        ("--eta 0.1", "did you mean --lr?"),
        ("--batchsize 32", "did you mean --batch-size?"),
        ("--batch 32", "did you mean --batch-size?"),
        ("--n-epochs 5", "did you mean --epochs?"),
        ("--max_iter 5", "did you mean --epochs?"),
        ("--epoch 5", "did you mean --epochs?"),
        ("--layers 50", "did you mean --hidden?"),
        ("--hidden-layers 50", "did you mean --hidden?"),
        ("--hidden_layer_sizes=50,20", "write --hidden 50,20"),
        ("--units 50 20", "write --hidden 50,20"),
        ("--momentum 0.9", "--optimizer momentum or nesterov has a momentum of 0.9"),
        ("--val-split 0.1", "did you mean --val-fraction?"),
        ("--early-stopping", "did you mean --patience, with --val-fraction?"),
        ("--gpu", "did you mean --device cuda?"),
        ("--cuda", "did you mean --device cuda?"),
        ("--cpu", "did you mean --device cpu?"),
        ("--verbose", "a run shows its progress anyway; --quiet turns that off"),
        ("--output o", "did you mean --out?"),
        ("--random-state 1", "did you mean --seed?"),
        ("--alpha 1", "did you mean --weight-decay?"),
        ("--target y", "did you mean --label-column?"),
        ("--train x.csv", "did you mean --data?"),
        ("--adam", "did you mean --optimizer adam?"),
        ("--optimzer adam", "did you mean --optimizer?"),
        ("--no-plots", "did you mean --no-plot?"),
        ("--LR 0.1", "did you mean --lr?"),
        ("-lr 0.1", "unknown option -lr; did you mean --lr?"),
        ("-e 3", "did you mean --epochs?"),
        ("-v", "--quiet turns that off"),
        ("--hidden 50 20", "write --hidden 50,20, without spaces"),
        ("--hidden 50, 20", "--hidden is '50,'; write --hidden 50,20"),
        ("--hidden 50 20 10 --lr 1", "write --hidden 50,20,10, without spaces"),
        ("--lr 1 --hidden=50 20", "write --hidden 50,20, without spaces"),
        ("--hidden [50,20]", "--hidden is '[50,20]'; write --hidden 50,20"),
        ("--hidden (50, 20)", "write --hidden 50,20"),
        ("--hidden 50x20", "write --hidden 50,20"),
        ("--activation relu tanh", "write --activation relu,tanh, without spaces"),
        ("iris.csv", "unexpected 'iris.csv'; write --data iris.csv"),
        ("--epochs 3 data/X.NPZ", "write --data data/X.NPZ"),
        ("--plot iris.csv", "write --data iris.csv"),
        ("--data a.csv b.csv", "--data takes one file, and --test-data another"),
        ("mnist", "did you mean --dataset mnist?"),
        ("lr=0.1", "unexpected 'lr=0.1'; did you mean --lr 0.1?"),
        ("epochs 3", "unexpected 'epochs'; did you mean --epochs?"),
        ("--plot true", "--plot takes no value: write --plot or --no-plot"),
        ("--plot=False", "--plot takes no value: write --plot or --no-plot"),
        ("--plot x.png", "unexpected 'x.png'; --plot takes no value"),
        ("--lr 0.1 0.2", "write --lr 0.1,0.2, without spaces"),
        ("--clip-norm 1 --patience 3 5", "unexpected '5'; --patience takes one value"),
        ("--cv 5", "unknown option --cv; did you mean --folds?"),
        ("--n-splits 5", "did you mean --folds?"),
        ("--grid x", "several values make a sweep: --lr 0.1,0.01 --seed 0..9"),
        ("--repeats 5", "--seed 0..9 trains ten networks"),
        ("--seed 0 1 2", "write --seed 0,1,2, without spaces"),
        ("--hidden 50 100,50", "write --hidden 50/100,50 for 2 networks"),
        ("--lr 0.1,,0.2", "--lr: '0.1,,0.2' has an empty value between two commas"),
        ("--lr 0.1,", "--lr: '0.1,' has an empty value"),
        ("--lr a,b", "--lr: 'a' is not a number above 0; write 3,5,7 for three values"),
        ("--lr 0.1,-1", "--lr: '-1' is not a number above 0"),
        ("--lr 0.1,none", "--lr: 'none' is not a number above 0"),
        ("--dropout 0,5", "--dropout is '0,5'; expected a number, written 0.5"),
        ("--lr 0.1,0.2,0.10", "--lr: 0.1 stands there twice"),
        ("--epochs 1,000", "--epochs: '000' is not a whole number above 0"),
        ("--epochs 3,5.5", "--epochs: '5.5' is not a whole number above 0; write"),
        ("--epochs 1..5", "--epochs is '1..5'; expected a whole number"),
        ("--seed 9..0", "--seed: '9..0' goes down; expected the smaller seed first, 0..9"),
        ("--seed 0..1000000", "--seed: '0..1000000' are more than 10,000 seeds"),
        ("--seed 0..3,2", "--seed: 2 stands there twice"),
        ("--seed 0..x", "--seed: '0..x' is not a seed; expected seeds, as in 0..9 or 1,2,5"),
        ("--seed ..", "--seed: '..' is not a seed"),
        ("--seed 1,,2", "--seed: '1,,2' has an empty value"),
        ("--seed x", "--seed is 'x'; expected a whole number"),
        ("--hidden 50//20", "--hidden: '50//20' has an empty value between two slashes"),
        ("--hidden 50/50", "--hidden: 50 stands there twice"),
        ("--hidden 50/x", "--hidden is '50/x'; expected sizes: 50,20"),
        ("--activation relu/sine", "--activation: 'sine' is not one of"),
        ("--optimizer sgd,adam", "--optimizer is 'sgd,adam', but takes one value; a sweep is over"),
        ("--patience 3,5", "--patience is '3,5', but takes one value; a sweep is over"),
        ("--folds 3,5.5", "--folds is '3,5.5', but takes one value"),
        ("-- x", "unexpected 'x'; only options are expected here"),
        ("--lr", "--lr needs a value: --lr FLOAT"),
        ("--lr --epochs 3", "--lr needs a value: --lr FLOAT"),
        ("--label-column -x", "if that is '-x', write --label-column=-x"),
        ("--lr 0,1", "--lr is '0,1'; expected a number, written 0.1"),
        ("--epochs ten", "--epochs is 'ten'; expected a whole number"),
        ("--optimizer Adam", "--optimizer is 'Adam'; did you mean adam?"),
        ("--init heavy", "--init is 'heavy'; expected NAME|STD"),
        ("--hidden 0", "--hidden: '0': layer sizes are from 1 to"),
        ("--hidden x", "--hidden is 'x'; expected sizes: 50,20"),
        ("--activation relu,sine", "--activation: 'sine' is not one of"),
        ("--no-header", "did you mean --header no?"),
        ("--loss crossentropy", "--loss is 'crossentropy'; expected auto, softmax, sigmoid"),
        ("--dataset minst", "did you mean mnist?"),
    ],
)
def test_advice_for_train(line: str, advice: str) -> None:
    found = of_train(line)
    assert found is not None
    assert advice in found
    assert "\n" not in found
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        tyro.cli(Config, args=line.split(), console_outputs=False)  # tyro refuses it too


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("--model run x.csv", "unknown option --model; write the MODEL without an option"),
        ("run --data x.csv", "unknown option --data; write the FILE without an option"),
        ("run x.csv --output o.csv", "did you mean --out?"),
        ("run x.csv y.csv", "unexpected 'y.csv'; the command takes MODEL FILE"),
        ("run", "FILE is missing; the command takes MODEL FILE"),
        ("", "MODEL is missing; the command takes MODEL FILE"),
        ("run x.csv --gpu", "did you mean --device cuda?"),
        ("run x.csv --hidden 3", "unknown option --hidden"),
    ],
)
def test_advice_for_predict(line: str, advice: str) -> None:
    found = suggest(line.split(), options_of(predict.Arguments))
    assert found is not None
    assert found.startswith(advice) or advice in found


def test_the_words_of_compare_stand_together() -> None:
    options = options_of(compare.Arguments)
    assert suggest(["a", "b", "--metric", "loss"], options) is None
    assert suggest(["--metric", "loss", "a", "b"], options) is None
    assert suggest(["a", "--metric", "loss", "b"], options) == (
        "'b' stands apart; write RUN... together"
    )
    assert suggest(["--metric", "loss"], options) == "RUN is missing; the command takes RUN..."


@pytest.mark.parametrize(
    "line",
    [
        "--epochs x --epochs 3", "", "--lr 0.1 --hidden 50,20",
        "--batch_size=3", "--no_plot --plot", "--lr -0.5",
        "--lr=-inf", "--lr -inf", "--lr none", "--out - --data=--lr", "--label-column -1",
        "--hidden=", "--label-column=-x", "--help", "-h", "--nonsense --help", "iris.csv -h",
        "--tyro-print-completion bash",
    ],
)  # fmt: skip
def test_right_words_are_left_alone(line: str) -> None:
    found = of_train(line)
    assert found is None or wants_help(line.split(), TRAIN)


def test_help_is_found_where_it_is_an_option() -> None:
    assert wants_help(["--lr", "0.1", "-h"], TRAIN)
    assert not wants_help(["--out=--help", "--", "--help"], TRAIN)
    assert not wants_help(["--lr", "0.1"], TRAIN)


@dataclass(frozen=True)
class Small:
    """Some options of each sort."""

    place: tyro.conf.Positional[str]
    rate: float = 0.5
    """How fast."""
    batch_size: int = 3
    kind: Literal["one", "two"] = "one"
    flag: bool = False
    other: bool = True
    name: str = "x"


POOL = [
    "--rate", "0.1", "--rate=2", "--batch_size", "7", "--batch-size=8", "--kind", "one", "two",
    "--kind=two", "--flag", "--no-flag", "--no_other", "--name", "--name=-q", "-5", "word", "--",
    "--ratte", "-x", "--flag=true", "--kind=three", "1e-3", "", "-inf", "--name=",
]  # fmt: skip


def test_what_is_refused_is_what_tyro_refuses() -> None:
    """The words that pass are those that tyro reads, for random ones of all sorts."""
    rng = random.Random(1)
    options = options_of(Small)
    passed = 0
    for _ in range(250):
        words = rng.choices(POOL, k=rng.randint(1, 5))
        try:
            tyro.cli(Small, args=words, console_outputs=False)
        except SystemExit:
            reads = False
        else:
            reads = True
        assert (suggest(words, options) is None) == reads, words
        passed += reads
    assert 25 < passed < 225


def test_each_name_of_other_tools_is_entered_once_per_command_and_is_not_ours() -> None:
    """So that a new option of ours is not called a mistake, and no entry is dead."""
    ours = {option.flag.removeprefix("--") for option in TRAIN}
    places = ("MODEL", "FILE", "--batch")  # of other commands
    seen: set[str] = set()
    for here, names in ELSEWHERE.items():
        if here in places:
            continue
        assert here.partition(" ")[0].removeprefix("--") in ours, here
        for name in names.split():
            assert name not in ours, name
            assert name not in seen, name
            seen.add(name)
    assert not seen & {name.removeprefix("--") for name in ADVICE}
    assert all(option in {o.flag for o in TRAIN} for option, _ in ADVICE.values())
    assert {*SHORT.values()} <= {o.flag for o in TRAIN} | {"--model", "--verbose"}


def test_what_advice_says_of_optimizers_is_true() -> None:
    from xpnet.optim import OPTIMIZERS

    assert [OPTIMIZERS[name].momentum for name in ("momentum", "nesterov")] == [0.9, 0.9]
    assert (OPTIMIZERS["adam"].beta1, OPTIMIZERS["adam"].beta2) == (0.9, 0.999)


# -- Options and help ----------------------------------------------------------------------


def tyros_help(cls: type, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), pytest.raises(SystemExit):
        tyro.cli(cls, args=["--help"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    return " ".join(re.sub("[│╭╮╰╯─]", " ", plain).split())


@pytest.mark.parametrize("cls", COMMANDS)
def test_options_are_those_that_tyro_shows(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tyros_help(cls, monkeypatch)
    options = options_of(cls)
    assert [option.field for option in options] == [f.name for f in fields(cls)]
    for option in options:
        if option.flag and option.metavar:
            assert f" {option.flag} {option.metavar} " in text
        elif option.flag:
            assert f" {option.flag}, --no-{option.flag[2:]} " in text
        assert option.metavar.rstrip(".") in text
        assert option.help
        assert option.help in text
        if option.metavar and not option.many:
            assert f"{option.help} {option.default}".strip() in text
        if option.read is not None and option.field in vars(cls):
            default = re.search(r"^\(default: (.*)\)$", option.default)
            assert default is None or option.read(default[1]) is not None
    shown = set(re.findall(r"(?<= )--[a-z0-9-]+(?=[ ,])", text)) - {"--help"}
    assert {option.flag for option in options if option.flag} <= shown


def test_options_of_a_dataclass_with_every_kind_of_field() -> None:
    @dataclass
    class Odd:
        a: Annotated[int, tyro.conf.arg(metavar="N", help="A number.")]
        b: Path | None = None
        c: list[int] = field(default_factory=lambda: [1, 2])
        d: float = 0.0
        e: bool = True

    a, b, c, d, e = options_of(Odd)
    assert (a.flag, a.metavar, a.help, a.needed, a.default) == ("--a", "N", "A number.", True, "")
    assert (b.metavar, b.default, b.needed) == ("PATH", "", False)
    assert (c.metavar, c.many) == ("INT", True)
    assert d.default == "(default: 0.0)"
    assert (e.metavar, e.default) == ("", "(default: on)")
    assert suggest(["--a", "1", "--c", "1", "2", "--d", "3"], (a, b, c, d, e)) is None
    assert suggest(["--a", "1", "--c", "1", "x"], (a, b, c, d, e)) is not None


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("cls", COMMANDS)
def test_the_help_names_every_option_once_and_keeps_to_the_width(cls: type, width: int) -> None:
    names = [f.name for f in fields(cls)]
    groups = {"First": names[1:2], "Second": names[2:3]}
    text = help_text(cls, "xpnet it", groups=groups, examples=["--a 1", "--b 2"], width=width)
    lines = text.splitlines()
    assert lines[0].startswith("usage: xpnet it ")
    assert lines[-3:] == ["Examples:", "  xpnet it --a 1", "  xpnet it --b 2"]
    assert lines.index("First:") < lines.index("Second:") < lines.index("Other options:")
    flat = " ".join(text.split())
    for option in options_of(cls):
        head = f"{option.flag} {option.metavar}".strip()
        if option.default and not option.metavar:  # a switch that is on
            head = f"--[no-]{option.flag[2:]}"
        assert len(re.findall(rf"^  {re.escape(head)}(  |$| \.\.\.)", text, re.M)) == 1, head
        assert option.help in flat
    heads = max(len(f"  {o.flag} {o.metavar}") for o in options_of(cls))
    assert max(map(len, lines)) <= max(width, heads)
    second = lines[lines.index("Second:") + 1]
    assert options_of(cls)[2].metavar in second


def test_a_group_names_fields_that_exist() -> None:
    with pytest.raises(KeyError):
        help_text(Small, "xpnet small", groups={"Data": ["nothing"]})


def test_reading_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert read(Small, ["a", "--rate", "2"], "xpnet small") == Small("a", 2.0)
    with pytest.raises(UsageError, match=r"did you mean --rate\? \(see xpnet small --help\)$"):
        read(Small, ["a", "--ratte", "2"], "xpnet small")
    with pytest.raises(SystemExit) as end:
        read(Small, ["--help"], "xpnet small", examples=["a --flag"])
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: xpnet small PLACE [options]\n\nSome options of each sort.\n")
    assert out.endswith("Examples:\n  xpnet small a --flag\n")
    assert err == ""


def test_the_words_of_the_process_are_read_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["xpnet", "a", "--batch-size", "9"])
    assert read(Small, None, "xpnet small").batch_size == 9


@pytest.mark.parametrize("word", ["\x1b[2J--x", "--\x1b[2J\n", "-\udcff", "--" + "x" * 10_000])
def test_odd_words_are_refused_in_one_printable_line(word: str) -> None:
    words: Sequence[Any] = [word]
    with pytest.raises(UsageError) as error:
        read(Config, words, "xpnet train")
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 1000


def test_an_option_is_plain_data() -> None:
    option = Option("lr", "--lr", "FLOAT")
    assert suggest(["--lr", "0.1"], [option]) is None
    assert suggest(["--leaning-rate"], [option]) == "unknown option --leaning-rate"
