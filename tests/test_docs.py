"""Every Python block of README and docs runs; the README's figures are those committed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block: str, in_tmp: Path) -> None:
    exec(compile(block, "<block>", "exec"), {})


def test_options_in_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from xpnet import predict, train

    help_text = ""
    for main in (train.main, predict.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        help_text += capsys.readouterr().out
    help_text += "--inputs --editable"
    for page in PAGES:
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())):
            assert option in help_text or option == "--help", f"{page.name}: {option}"


def test_relative_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_figures_are_the_committed_ones() -> None:
    from benchmarks.readme import BEGIN, END, newest, section

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    expected = section(newest("train_step"), newest("mnist"))
    assert text.split(BEGIN)[1].split(END)[0] == expected


def test_the_benchmark_runs_and_checks_its_contenders(tmp_path: Path) -> None:
    from benchmarks import train_step

    out = tmp_path / "r.json"
    only = ["--only", "xpnet numpy", "book loop"]
    args = ["--rounds", "1", "--steps", "20", "--out", str(out), *only]
    assert train_step.main(args) == 0
    results = json.loads(out.read_text())
    assert set(results["us_per_step"]) == {"xpnet numpy", "book loop"}
    assert results["machine"]["cores"] >= 1
