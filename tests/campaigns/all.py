"""All campaigns, one after the other, in the minutes that are given; prints one table.

Exit status 1 if a promise did not hold: stderr says which, and how to repeat it.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
from campaign import HEADER

import xpnet

# Each with its part of the time: more, where one trial takes long or there is more to try.
PARTS = {
    "kill": 6,
    "signals": 2,
    "crashes": 3,
    "damaged_models": 3,
    "damaged_data": 3,
    "disk_full": 1,
    "two_processes": 1,
    "downloads": 1,
    "api": 1,
    "long_run": 1,
    "ranks": 3,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all of them together")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder, broken = Path(__file__).parent, []
    print(HEADER, flush=True)
    for name, part in PARTS.items():
        minutes = given.minutes * part / sum(PARTS.values())
        command = [sys.executable, str(folder / f"{name}.py"), "--rows"]
        command += ["--minutes", str(minutes), "--seed", str(given.seed)]
        # One thread: the bits of a training depend on their number, and others work here too.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if subprocess.run(command, env=environment, check=False).returncode:
            broken.append(name)
    print(
        f"\n{date.today()}, {given.minutes:g} minutes, seed {given.seed}, "
        f"{xpnet.select('cpu').device_name}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}, NumPy {np.__version__}"
    )
    if broken:
        print(f"not everything held: {', '.join(broken)}", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
