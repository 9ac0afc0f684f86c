"""Seconds until something can be done, beyond those of the bare interpreter: python -m benchmarks.startup

Medians of fresh processes, in turns; a run before them, not counted, fills the caches.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import installed, spread

RUNS = 5
BARE = [sys.executable, "-c", "pass"]
COMMANDS = {
    "biovae": {
        "import biovae": [sys.executable, "-c", "import biovae"],
        "from biovae import VAE": [sys.executable, "-c", "from biovae import VAE"],
        "biovae --help": [str(Path(sys.executable).with_name("biovae")), "--help"],
    },
    "scvi": {"import scvi": [sys.executable, "-c", "import scvi"]},
}


def seconds(command: list[str]) -> float:
    """Of one process, which may keep its compiled modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def main() -> None:
    commands = {"bare": BARE}
    for named in installed(COMMANDS).values():
        commands |= named
    runs = [{name: seconds(command) for name, command in commands.items()} for _ in range(1 + RUNS)][1:]
    bare = [run.pop("bare") for run in runs]
    print(f"bare interpreter: {spread(bare, 3)} s\n\n| command | s beyond the bare interpreter |\n|---|---|")
    for name in runs[0]:
        beyond = [run[name] - before for run, before in zip(runs, bare, strict=True)]
        print(f"| {name} | {spread(beyond, 3)} |")


if __name__ == "__main__":
    main()
