"""From a `Report` to one HTML page that needs nothing else: no network, no script, no second file.

Pictures are SVG inside the page, its style is in its head, and its content security policy forbids the rest. All text
is escaped by jinja2; only the SVG that matplotlib wrote goes in as it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from biovae import __version__
from biovae.report.glossary import ENGINE, HENNIG, LEIDEN, PIT, UMAP
from biovae.report.parts import Section, Tile, number
from biovae.report.report import Report
from biovae.report.sections import sections

STATES = ("broken", "look", "ok")  # worst first
VERBATIM = ("name", "normal", "advice")  # of a verdict's line
HEADLINES = {
    "ok": "This model can be used: every check is as it should be.",
    "look": "Usable with care: read the lines marked “look” first.",
    "broken": "Do not rely on this model yet: at least one check failed.",
}


def render(report: Report) -> str:
    """The page, as text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biovae.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    body = sections(report)
    return environment.get_template("template.html").render(
        report=report,
        version=__version__,
        tiles=tiles(report),
        verdict=judgement(report.verdict),
        sections=body,
        citations=cited(report, body),
        versions=sorted(report.versions.items()),
        markup=Markup,  # for the SVG that matplotlib wrote, and nothing else
    )


def write(report: Report, path: Path | str) -> Path:
    """Write the page, whole or not at all; its folder is made if need be.

    Raises:
        OSError: The disk is full or read-only; a page that was there is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    content = render(report).encode("utf-8", errors="replace")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def judgement(verdict: Any | None) -> dict[str, Any] | None:
    """The verdict for the page: the worst lines first, numbers written out."""
    if verdict is None:
        return None
    lines = sorted(verdict.lines, key=lambda line: STATES.index(str(line.state)))
    states = [str(line.state) for line in lines]
    return {
        "overall": str(verdict.overall),
        "headline": HEADLINES[str(verdict.overall)],
        "counts": [(state, states.count(state)) for state in reversed(STATES)],
        "lines": [
            {"state": state, "value": number(line.value)} | {key: getattr(line, key) for key in VERBATIM}
            for line, state in zip(lines, states, strict=True)
        ],
    }


def tiles(report: Report) -> list[Tile]:
    """The few numbers that a reader wants before all others."""
    shown: list[Tile] = []
    if report.embedding is not None:
        observations, latent = np.shape(report.embedding)
        shown += [Tile("observations", number(observations)), Tile("latent dimensions", number(latent))]
    # The null is that of the observations that judge: the test set, where there is one.
    bounds = (report.metrics.get(name) for name in ("test_elbo", "validation_elbo"))
    bound, null = next((b for b in bounds if b is not None), None), report.null_elbo
    if bound is not None and null is not None:
        shown.append(Tile("gain over the null", f"{bound - null:+,.1f}", "nats per obs."))
    elif bound is not None:
        shown.append(Tile("validation bound", number(bound, 4), "nats per obs."))
    if report.active is not None:
        shown.append(Tile("active dimensions", f"{int(np.sum(report.active))} of {len(report.active)}"))
    if report.stability is not None:
        groups = report.stability.groups
        shown.append(Tile("stable clusters", f"{int(groups['stable'].sum())} of {len(groups)}"))
    for key, name, unit in (("epochs", "epochs", ""), ("seconds", "time", "s")):
        if report.metrics.get(key) is not None:
            shown.append(Tile(name, number(report.metrics[key]), unit))
    return shown


def cited(report: Report, body: list[Section]) -> list[str]:
    """What to cite: biovae, the idea, and the methods that this page in fact shows."""
    drawn = {section.key: section for section in body}
    with_umap = "map" in drawn and any("UMAP of z" in note for note in drawn["map"].notes)
    conditional = (
        (with_umap, UMAP), ("clusters" in drawn, LEIDEN), ("stability" in drawn, HENNIG), (report.pit is not None, PIT),
    )  # fmt: skip
    own = f"biovae developers, biovae: variational autoencoders for biological data, version {__version__}"
    return [own, ENGINE, *report.citations, *(source for used, source in conditional if used)]
