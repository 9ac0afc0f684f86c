"""Run the pages of this folder as a reader would: `python docs/practice/make.py FOLDER` keeps their pictures there.

A page is one script in pieces: its Python blocks run in order and share their names. It sets `seed = 0` once, asserts
what it says, and leaves its picture under the name `figure`.
"""

import re
import sys
from pathlib import Path

from biovae.plotting import png

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for page in HERE.glob("*.md") if page.name != "README.md")


def blocks(page: Path) -> list[str]:
    """The Python of a page, block by block, each at its own line so that errors point there."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in BLOCK.finditer(text)]


def run(page: Path, seed: int = 0) -> dict:
    """The names that a page leaves behind."""
    names: dict = {}
    for block in blocks(page):
        exec(compile(block.replace("seed = 0\n", f"seed = {seed}\n"), str(page), "exec"), names)
    return names


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for page in PAGES:
        (folder / f"{page.stem}.png").write_bytes(png(run(page)["figure"], dpi=110))
        print(page.stem)
