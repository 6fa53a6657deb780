"""Compiles the C and C++ once per machine: a shared library per text, found again by its hash."""

import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]


def _folder():
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    folder = Path(tempfile.gettempdir()) / f"cupy-simulator-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def build(source, compiler, options, error=RuntimeError):
    """The path of a shared library made of `source`, a text."""
    suffix = {"gcc": "c", "g++": "cpp"}[compiler]
    header = (FOLDER / "cuda_on_cpu.h").read_text() if "cuda_on_cpu.h" in source else ""
    key = hashlib.sha256("\0".join([source, header, compiler, *options]).encode()).hexdigest()[:24]
    library = _folder() / f"{key}.so"
    if library.exists():
        return str(library)
    if shutil.which(compiler) is None:
        raise RuntimeError(f"simulator: {compiler} is not installed")
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        text, made = Path(scratch) / f"source.{suffix}", Path(scratch) / "made.so"
        text.write_text(source)
        command = [compiler, "-shared", "-fPIC", "-w", f"-I{FOLDER}", *options, "-o", made, text]
        run = subprocess.run([*command, "-lm"], capture_output=True, text=True)
        if run.returncode:
            raise error(f"{run.stderr}\n{source}")
        os.replace(made, library)  # whole or not at all: other processes build the same
    return str(library)
