"""Every Python block of docs runs, and prints the text block that follows it.

`test_guides` follows README and the guides from top to bottom. Blocks for a GPU are marked `gpu`.
The README's figures are those committed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import usable_cupy
from test_guides import GUIDES, commands

from xpnet.commands.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
BLOCKS = [
    pytest.param(
        *block,
        id=f"{page.relative_to(ROOT)}-{i}",
        marks=[pytest.mark.gpu] if re.search(r'import cupy|device="cuda', block[0]) else [],
    )
    for page in PAGES
    if page not in GUIDES
    for i, block in enumerate(BLOCK.findall(page.read_text()))
]


@pytest.mark.parametrize(("block", "printed"), BLOCKS)
def test_python_blocks_run(
    block: str, printed: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = set(
        re.findall(
            r"""(?:from |import |backend=")(cupy|jax|pandas|polars|sklearn|torch)\b""", block
        )
    )
    for library in needed - {"cupy"}:
        pytest.importorskip(library, reason=f"{library} is not installed")
    if "cupy" in needed:
        usable_cupy()
    exec(compile(block, "<block>", "exec"), {})
    if printed:
        (words, numbers), (old_words, old_numbers) = map(
            _numbers, (capsys.readouterr().out, printed)
        )
        assert words == old_words
        assert numbers == pytest.approx(old_numbers, rel=0.03)  # another BLAS, another last digit


def test_the_parameters_of_the_estimators_are_in_the_table() -> None:
    theirs = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    import xpnet

    text = (ROOT / "docs/sklearn.md").read_text(encoding="utf-8").split("## Parameters")[1]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|", text, re.MULTILINE)
    for name, column in (("MLPClassifier", 1), ("MLPRegressor", 2)):
        told = {row[0]: row[column] for row in rows if row[column] != "—"}
        ours = inspect.signature(getattr(xpnet, name)).parameters
        known = inspect.signature(getattr(theirs, name)).parameters
        assert list(told) == list(ours)
        assert {n for n, kind in told.items() if kind == "new"} == ours.keys() - known.keys()
        assert set(told.values()) == {"same", "wider", "new"}


def test_options_in_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import (
        compare,
        convolution,
        estimators,
        gpu_report,
        growth,
        matmul,
        mnist,
        pictures,
        train_step,
    )
    from xpnet.commands import compare as compare_runs
    from xpnet.commands import evaluate, explain, gradcheck, predict, train

    help_text = ""
    commands = (train, predict, evaluate, compare_runs, gradcheck, explain, compare, growth)
    for main in (
        command.main
        for command in (
            *commands,
            convolution,
            gpu_report,
            matmul,
            mnist,
            estimators,
            pictures,
            train_step,
        )
    ):
        with pytest.raises(SystemExit):
            main(["--help"])
        help_text += capsys.readouterr().out
    help_text = help_text.replace("[no-]", "no-") + "--inputs --editable --version"
    help_text += "--dist"  # of pytest-xdist
    help_text += (  # of mpirun and Slurm
        "--map-by --nodes --ntasks-per-node --cpus-per-task --gpus-per-task --signal --requeue"
    )
    help_text += (ROOT / "examples/book/chapter.py").read_text()
    help_text += (ROOT / "benchmarks/gpu.sh").read_text().split("set -u")[0]
    for page in PAGES:
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())):
            assert option in help_text or option == "--help", f"{page.name}: {option}"


def test_trainings_in_the_docs_can_be_read(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options, values and combinations of each `xpnet train`; those in the guides run."""
    from xpnet.commands.main import main

    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.M | re.DOTALL):
            for command, _ in commands(block):
                words = shlex.split(command)
                if words[:2] == ["xpnet", "train"] and "--resume" not in words:
                    assert main([*words[1:], "--print-config"]) == 0, command
                elif words[:1] == ["xpnet"]:
                    assert words[1] in COMMANDS, command


def test_the_table_of_columns_is_what_a_dry_run_prints(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page shows all of it but for the line that names the machine."""
    from test_examples import load

    from xpnet.commands.main import main

    load("tables").write_passengers(Path("passengers.csv"))
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    before, block = page.split("<!-- dry run: begin -->")
    command = re.findall(r"^\$ xpnet (.*--dry-run)$", before, re.MULTILINE)[-1]
    assert main(command.split()) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:7] != "backend"]
    assert block.split("<!-- dry run: end -->")[0].split("```text\n")[1].split("```")[0] == (
        "\n".join([*lines, ""])
    )


def test_relative_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_figures_of_readme_and_results_are_the_committed_ones() -> None:
    from benchmarks.readme import BEGIN, END, pages

    for page, lines in pages().items():
        text = page.read_text(encoding="utf-8")
        assert text.split(BEGIN)[1].split(END)[0] == "\n".join(lines), page.name


def _numbers(text: str) -> tuple[str, list[float]]:
    """A picture's words, and its numbers apart: another BLAS may round the last digit its way."""
    number = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    return re.sub(number, "#", text), [float(n) for n in re.findall(number, text)]


def _shown(text: str) -> str:
    """What can be read: all of a table; of a picture, its texts."""
    return "\n".join(re.findall(r">([^<>]*)</text>", text)) if "<svg" in text else text


def _placed(text: str) -> str:
    return re.sub(r">[^<>]*</text>", "", text) if "<svg" in text else ""


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds its own places
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_and_tables_are_those_of_the_script(pictures: ModuleType, tmp_path: Path) -> None:
    images = ROOT / "docs/img"
    pictures.circuits(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        p.name for p in (ROOT / "docs/img").glob("*.svg")
    }
    page = (ROOT / "docs/chapter4_table.md").read_text(encoding="utf-8")
    pairs = [(p.read_text(), (images / p.name).read_text()) for p in tmp_path.iterdir()]
    pairs.append((pictures.table(), page.split(pictures.BEGIN)[1].split(pictures.END)[0]))
    for drawn, committed in pairs:
        for part in (_shown, _placed):
            (words, numbers), (old_words, old_numbers) = (
                _numbers(part(text)) for text in (drawn, committed)
            )
            assert words == old_words
            near = 1e-12 if part is _shown else 0.5  # a number, or a place in pixels
            assert numbers == pytest.approx(old_numbers, rel=2e-3, abs=near)


def test_every_picture_is_shown_and_every_page_is_in_the_menu() -> None:
    docs = ROOT / "docs"
    pages = {
        page.relative_to(docs).as_posix(): page.read_text(encoding="utf-8")
        for page in docs.rglob("*.md")
    }
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in pages:
        assert f": {name}\n" in menu
    shown = "".join([*pages.values(), (ROOT / "README.md").read_text(encoding="utf-8")])
    for picture in (ROOT / "docs/img").rglob("*.*"):
        place = picture.relative_to(ROOT / "docs").as_posix()
        assert f"{place})" in shown, place


def test_the_gallery_is_that_of_the_script(
    pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures are made, after one epoch, but not rendered, which takes seconds."""
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
    titles = {}

    def title(figure: Any, path: Path, **options: Any) -> None:
        titles[path.name] = figure.get_suptitle()
        path.touch()

    monkeypatch.setattr(figure.Figure, "savefig", title)
    trained = pictures._trained
    monkeypatch.setattr(
        pictures, "_trained", lambda data, sizes, kind, epochs, **k: trained(data, sizes, kind, 1)
    )
    pictures.gallery(tmp_path)
    committed = {path.name: path.stat().st_size for path in (ROOT / "docs/img/gallery").iterdir()}
    assert {p.name for p in tmp_path.iterdir()} == committed.keys() == pictures.GALLERY.keys()
    assert all(titles.values())
    assert max(committed.values()) < 80_000
    for name, (head, sentence) in pictures.GALLERY.items():
        assert head[0].isupper(), name
        assert sentence.endswith("."), name


def test_the_chapters_of_the_book_have_the_pictures_of_the_script(pictures: ModuleType) -> None:
    """`test_book_examples` runs the programs that draw them."""
    committed = {path.name: path.stat().st_size for path in (ROOT / "docs/img/book").iterdir()}
    assert committed.keys() == set(pictures.CHAPTERS)
    assert max(committed.values()) < 80_000


def test_the_api_reference_has_every_public_module() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    import xpnet

    pages = (ROOT / "docs/api").glob("*.md")
    reference = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in xpnet.__all__:
        value = getattr(xpnet, name)
        module = value.__name__ if isinstance(value, ModuleType) else value.__module__
        assert f"::: {module}\n" in reference, name
    for module in re.findall(r"^::: (.*)$", reference, re.MULTILINE):
        importlib.import_module(module)


def test_the_documents_figures_are_those_stored() -> None:
    from benchmarks.readme import newest

    record = newest("documents")
    train, test = record["book"]["accuracies"][-1]
    page = (ROOT / "docs/chapter5_layers.md").read_text(encoding="utf-8")
    assert f"reaches {100 * train:.1f} % on the training images and {100 * test:.1f} %" in page
    assert f"({record['machine']['date']}, two cores of an AMD EPYC" in page
    losses = record["lecture"]["losses"]
    page = (ROOT / "docs/lecture4_circuits.md").read_text(encoding="utf-8")
    assert f"with ours it is {losses[0]:.0f} and {losses[-1]:.2f}" in page
