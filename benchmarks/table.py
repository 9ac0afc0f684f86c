"""The race as one table and one picture."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.common import spread
from benchmarks.race import crossing

COLOURS = {"biovae": "#0072B2", "scvi": "#D55E00", "scvi_tuned": "#E69F00"}
NAMES = {"biovae": "biovae", "scvi": "SCVI, defaults", "scvi_tuned": "SCVI, batch 1,024"}


def ratios(out: Path, name: str, seed: int) -> dict[str, float]:
    """Seconds and how many times faster, of one file and seed."""
    run = {who: np.load(path) for who in COLOURS if (path := out / f"{who}_{name}_{seed}.npz").exists()}
    target, best, sooner = float(run["scvi"]["bound"]), np.nan, np.nan
    if "scvi_tuned" in run:
        best = float(run["scvi_tuned"]["curve"][:, 1].max())
        sooner = crossing(run["scvi_tuned"], best) / crossing(run["biovae"], best)
    mine = crossing(run["biovae"], target)
    return {
        "scvi bound": target,
        "scvi seconds": float(run["scvi"]["seconds"]),
        "biovae bound": float(run["biovae"]["bound"]),
        "biovae seconds": float(run["biovae"]["seconds"]),
        "to bound": mine,
        "whole": float(run["scvi"]["seconds"]) / mine,
        "crossing": crossing(run["scvi"], target) / mine,
        "tuned bound": best,
        "tuned": sooner,
        "floor": float(run["biovae"]["floor"]),
        "nmf": float(run["biovae"].get("nmf", np.nan)),  # older runs lack it
    }


def table(out: Path, names: list[str], seeds: list[int]) -> str:
    """Medians over seeds, their range in brackets; below it the floor for time."""
    lines = [
        "| file | SCVI: nats, s | biovae: nats, s | s to SCVI's bound | (a) whole run | (b) first crossing "
        "| SCVI tuned: nats | times faster | PCA, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    floors = []
    for name in names:
        found = [ratios(out, name, seed) for seed in seeds]
        floors += found
        at = {key: np.array([each[key] for each in found]) for key in found[0]}
        middle = {key: np.median(values) for key, values in at.items()}
        times = {key: spread(at[key]) for key in ("whole", "crossing", "tuned")}
        lines.append(
            f"| {name} | {middle['scvi bound']:.1f}, {middle['scvi seconds']:.0f} "
            f"| {middle['biovae bound']:.1f}, {middle['biovae seconds']:.1f} | {middle['to bound']:.1f} "
            f"| {times['whole']} | {times['crossing']} | {middle['tuned bound']:.1f} | {times['tuned']} "
            f"| {middle['floor']:.1f} |"
        )
    return "\n".join([*lines, "", caption(floors)])


def quality(out: Path, names: list[str], seeds: list[int]) -> str:
    """Gain over the null and neighbours' accuracy of both, cells paired, each cell the mean over seeds."""
    lines = [
        "| file | null | gain of SCVI | of biovae | more, % | bound, nats more (95 %) "
        "| 15-NN SCVI | biovae | points more (95 %) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        runs = {who: [np.load(out / f"{who}_{name}_{seed}.npz") for seed in seeds] for who in ("scvi", "biovae")}
        elbo, hits = (
            {who: np.mean([run[key] for run in of], 0) for who, of in runs.items()} for key in ("elbo", "hits")
        )
        null = np.mean([run["null"] for run in runs["biovae"]])
        gain = {who: each.mean() - null for who, each in elbo.items()}
        lines.append(
            f"| {name} | {null:.1f} | {gain['scvi']:.1f} | {gain['biovae']:.1f} "
            f"| {100 * (gain['biovae'] / gain['scvi'] - 1):+.1f} | {interval(elbo['biovae'] - elbo['scvi'])} "
            f"| {hits['scvi'].mean():.3f} | {hits['biovae'].mean():.3f} "
            f"| {interval(100 * (hits['biovae'] - hits['scvi']))} |"
        )
    return "\n".join(lines)


def interval(difference: np.ndarray) -> str:
    """Mean of paired differences, and 1.96 standard errors to both sides."""
    middle, error = difference.mean(), difference.std() / np.sqrt(len(difference))
    return f"{middle:+.1f} ({middle - 1.96 * error:+.1f} to {middle + 1.96 * error:+.1f})"


def caption(found: list[dict[str, float]]) -> str:
    """Seconds of the floor over all files and seeds; methods that no run has timed are left out."""
    seconds = {"PCA": [each["floor"] for each in found], "NMF": [each["nmf"] for each in found]}
    timed = {who: [value for value in values if np.isfinite(value)] for who, values in seconds.items()}
    return "Floor for time, s: " + ", ".join(f"{who} {spread(values, 1)}" for who, values in timed.items() if values)


def plot(out: Path, names: list[str], seeds: list[int]) -> None:
    """Held-out bound against seconds, one panel per file, every seed a line: OUT/bound_against_seconds.png."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.6 * rows), squeeze=False, layout="constrained")
    for name, axis in zip(names, axes.flat, strict=False):
        ends = []
        for who, colour in COLOURS.items():
            for seed in seeds:
                path = out / f"{who}_{name}_{seed}.npz"
                if not path.exists():
                    continue
                seconds, bound = np.load(path)["curve"].T
                axis.plot(seconds, bound, color=colour, lw=1.2, label=NAMES[who] if seed == seeds[0] else None)
                ends += [bound[-1], np.quantile(bound, 0.2)]
        axis.set(xscale="log", title=name, ylim=(min(ends), max(ends) + 0.05 * np.ptp(ends)))
        axis.title.set_fontsize(8)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    figure.supxlabel("seconds", fontsize=9)
    figure.supylabel("held-out bound, nats per cell", fontsize=9)
    figure.savefig(out / "bound_against_seconds.png", dpi=150)
