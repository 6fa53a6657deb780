"""The guides, from top to bottom as a reader follows them: every command and every block runs.

A block of a page goes on from the blocks before it, in a folder that has `examples/` in it, as a
checkout has. What stands below a command, or in a text block after a block of Python, is what
is printed: the words of a command; words and numbers of Python, but for what another processor
makes of a training by adding up in another order. `...` stands for a part of a line, or alone for
some lines.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from xpnet.commands.main import main

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "tutorial", "coming_from", "faq")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
]
LIBRARIES = ("jax", "matplotlib", "pandas", "PIL", "polars", "pyarrow", "sklearn", "torch")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


class Block(NamedTuple):
    kind: str
    text: str
    printed: str  # a text block that follows


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r"^```(python|console)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [Block(*block) for block in found]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Split a console block into commands, in one line each, and what stands below them."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, below = part.partition("\n")
        for line in unrolled(re.split(r"\s+#\s", command)[0].strip()):
            yield from ((one.strip(), below) for one in line.split("&&"))


def unrolled(line: str) -> list[str]:
    """Write out the loops of a line: `for NAME in WORDS; do COMMAND; done`."""
    loop = re.fullmatch(r"for (\w+) in (.*?); do (.*); done", line)
    if loop is None:
        return [line]
    return [
        one for word in loop[2].split() for one in unrolled(loop[3].replace(f"${loop[1]}", word))
    ]


def run(command: str) -> None:
    """Run one command here, or leave it out: what installs, tests, or needs a GPU."""
    words = shlex.split(command)
    if re.search(r"\bpip install\b|\bpytest\b|\bzensical\b|cuda", command):
        return
    if words[:2] == ["python", "-m"] and words[2].startswith("xpnet."):
        words = ["xpnet", words[2].removeprefix("xpnet."), *words[3:]]
    if words[0] == "xpnet":
        assert main(words[1:]) == 0, command
    elif words[0] == "python" and words[1].startswith("examples/"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
    else:
        assert words[0] in ("cat", "head", "ls", "timeout"), f"cannot run here: {command}"
        print(subprocess.run(command, shell=True, capture_output=True, text=True).stdout, end="")


def same_words(shown: str, printed: str) -> bool:
    """Whether what was printed is what is shown, but for numbers, spaces, and each `...`.

    Without a line `...`, the lines may have another order: close scores exchange rows of a table.
    """
    wanted, found = (
        [" ".join(NUMBER.sub("#", line).split()) for line in text.strip().splitlines()]
        for text in (shown, printed)
    )
    parts = [re.escape(line).replace(r"\.\.\.", ".*") for line in wanted]
    if "..." not in wanted:
        rest = [next((f for f in found if re.fullmatch(part, f)), None) for part in parts]
        return len(found) == len(parts) and {*rest} == {*found}
    pattern = "".join("(?:.*\n)*?" if part == ".*" else part + "\n" for part in parts)
    return re.fullmatch(pattern, "\n".join([*found, ""])) is not None


def of_page(page: Path) -> Any:
    """A page as a parameter; one that trains on images for long is slow."""
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] * (page.name == "images.md"))


@pytest.mark.parametrize("page", [of_page(page) for page in GUIDES])
def test_guide(
    page: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    (in_tmp / "examples").symlink_to(ROOT / "examples")
    text = "".join(block.text for block in blocks(page))
    needed = {*re.findall(r"""(?:from |import |backend |backend=")(\w+)""", text)}
    if re.search(r"--plot|\.plot\(", text):
        needed.add("matplotlib")
    for library in sorted(needed.intersection(LIBRARIES)):
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        if library == "torch":  # its threads would wait for each other beside other tests
            request.addfinalizer(partial(module.set_num_threads, module.get_num_threads()))
            module.set_num_threads(1)
    names: dict[str, Any] = {"__name__": "guide"}
    seen = blocks(ROOT / "README.md") if page.name == "index.md" else []
    for kind, body, printed in blocks(page):
        if printed and any(printed == block.printed for block in seen):
            continue  # the README's training takes two seconds
        if kind == "console":
            together = ""
            for command, below in commands(body):
                capsys.readouterr()
                run(command)
                out = capsys.readouterr().out
                together += "" if below else out
                assert not (below and out) or same_words(below, out), f"{command}\n{out}"
            assert not printed or same_words(printed, together), together
            continue
        code = compile(body, f"{page.name}: {body.splitlines()[0]}", "exec")
        if re.search(r"(?:from|import) keras|cuda", body):
            continue  # not here; it compiles
        exec(code, names)
        out = capsys.readouterr().out
        if printed:
            assert same_words(printed, out), out
            if "..." not in printed:
                numbers, old = (
                    [float(n.replace(",", "")) for n in NUMBER.findall(part)]
                    for part in (out, printed)
                )
                assert numbers == pytest.approx(old, rel=0.15, abs=0.05)
    assert {path.name for path in in_tmp.iterdir()} <= {"examples", "runs"}  # git ignores runs/


def test_commands() -> None:
    """A comment, a line that goes on, a loop, and two commands in one line."""
    text = (
        "$ xpnet train \\\n   --seed 1   # a word\nout\n$ for i in 1 2; do ls $i; done\n$ a && b\n"
    )
    assert list(commands(text)) == [
        ("xpnet train     --seed 1", "out\n"), ("ls 1", ""), ("ls 2", ""), ("a", ""), ("b", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("loss 0.5  word", "loss 12.25 word\n", True),
        ("loss 0.5  word", "loss 12.25 words\n", False),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nb\nc", False),
        ("on ... here", "on 2 cores here", True),
    ],
)
def test_same_words(shown: str, printed: str, same: bool) -> None:
    assert same_words(shown, printed) is same


def test_every_example_has_its_source_on_a_page() -> None:
    page = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
    examples = [*(ROOT / "examples").rglob("*.py")]
    for path in examples:
        assert f'--8<-- "{path.relative_to(ROOT).as_posix()}"' in page
        if path.stem != "chapter":  # what the programs of the book share
            assert f"[{path.name}](#{path.stem.replace('_', '-')})" in page
    assert page.count("--8<--") == len(examples)
