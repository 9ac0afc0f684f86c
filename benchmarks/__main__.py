"""python -m benchmarks DATA OUT [--files NAME,...] [--seeds 0,1,2]: see `benchmarks.race`."""

import argparse
from pathlib import Path

from benchmarks.common import FILES
from benchmarks.race import race
from benchmarks.table import plot, quality, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    names, seeds = asked.files.split(","), [int(seed) for seed in asked.seeds.split(",")]
    for seed in seeds:
        for name in names:
            race(asked.data, asked.out, name, seed)
    print(table(asked.out, names, seeds), quality(asked.out, names, seeds), sep="\n\n")
    plot(asked.out, names, seeds)


if __name__ == "__main__":
    main()
