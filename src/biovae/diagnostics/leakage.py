"""Does z give away how deeply an observation was measured, or in which batch?

    z       positions, (obs, latent)
    groups  neighbourhood of each observation: clusters of z, or known types, (obs,)

Types differ in depth and in how often each batch holds them, and z must know types. What leaks is therefore measured
within groups only. Clusters of z have a weakness: where z is little but depth, they cut depth into slices, and within
a slice little is left to see. `library` looks for that case, too; `covariate` says when groups hold one batch each.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from biovae.analysis.axes.linear import explained_out_of_fold, out_of_fold, r2, slopes
from biovae.analysis.neighbourhoods.clusters import leiden
from biovae.analysis.neighbourhoods.neighbours import codes, nearest
from biovae.analysis.neighbourhoods.positions import finite
from biovae.diagnostics.collapse import active
from biovae.diagnostics.verdict import Line, State, below, worst

DEPTH = (0.1, 0.5)  # R2 within groups: a correlation of 0.32, of 0.71
MIXING = (0.2, 0.6)  # excess of neighbours of the same batch
REAL = 0.02  # R2 that is more than luck at a few hundred observations
SMALLEST = 20  # observations: below, a group says nothing about a slope
SHARED = 0.05  # of a group's observations outside its largest category: then categories meet in it
ALONE = 0.5  # of observations in groups of one batch: then mixing cannot be judged


def library(
    z: Float[np.ndarray, "obs latent"],
    log_library: Float[np.ndarray, "obs"],
    groups: np.ndarray,
    seed: int = 0,
    linear: Float[np.ndarray, "obs components"] | None = None,
) -> Line:
    """Cross-validated R2 of log library size from z, both without the means of their group; see `within_groups`.

    Look from 0.1 on, broken from 0.5 on: then depth is the main axis of a neighbourhood. But where PCA of values from
    which depth was divided out knows as much, depth changes what is measured, and the model only shows it: look.

    Args:
        z: See the file head.
        log_library: Of each observation.
        groups: See the file head.
        seed: Of folds and clusters.
        linear: PCA's scores of the depth-normalised values, the same observations.
    """
    advice = (
        "Within a neighbourhood, z does not know how deeply an observation was measured.",
        "Neighbours in z are sorted by how deeply they were measured: check that the exposure is the total of these "
        "counts and that damaged observations are filtered; larger cells may also be a state of their own.",
    )
    value = within_groups(z, log_library, groups, seed)
    line = _sorted("leakage of library size", value, advice)
    if line.state is not State.BROKEN or linear is None:
        return line
    known = within_groups(linear, log_library, groups, seed)
    if value > known + DEPTH[0]:
        return line
    excuse = (
        f"Neighbours in z are sorted by depth, but so are those of PCA of depth-normalised values (R2 {known:.2f}): "
        "depth changes what is measured here. Look for damaged observations, contamination, or large cells as a state. "
        "If all of it is technical, log totals as a covariate take a part out of z, and cost some of the fit."
    )
    return replace(line, state=State.LOOK, advice=excuse)


def covariate(
    z: Float[np.ndarray, "obs latent"], values: np.ndarray, groups: np.ndarray, name: str, seed: int = 0
) -> Line:
    """What z knows of a covariate within groups: R2 of numbers (floating), the excess of neighbours of categories.

    The excess is (same - chance) / (1 - chance): the share of an observation's neighbours in its group that are of its
    own category, against the category's share in the group; 0 is mixed, 1 is apart. Look from 0.2 on, broken from 0.6.
    Where half of the observations are in groups of one category, mixing cannot be judged (look): either the categories
    have no state in common, or z keeps them apart.
    """
    if np.issubdtype(np.asarray(values).dtype, np.floating):
        advice = (
            f"Within a neighbourhood, z does not know {name}.",
            f"Neighbours in z are sorted by {name}: give it to the encoder, too, or train longer.",
        )
        return _sorted(f"leakage of {name}", within_groups(z, values, groups, seed), advice)
    return _mixed(z, codes(values, len(z)), codes(groups, len(z)), name)


def within_groups(
    z: Float[np.ndarray, "obs latent"], y: Float[np.ndarray, "obs"], groups: np.ndarray, seed: int = 0
) -> float:
    """R2 of y from z within groups, the largest of three answers, at least 0; NaN where every group is too small.

    One slope for all groups; a slope for each; and, where the first is real, that one slope within new groups, made
    without the direction it points in. The last sees y in a z that was cut into slices of y; because the slope is not
    fitted again, types that fall together in the new groups cannot feign a leak. Dimensions that are not active are
    left out: neither the eye nor a neighbour graph reads them. So are observations whose y is not finite.
    """
    z, y = finite(z), np.asarray(y, dtype=np.float64).reshape(-1, 1)
    member = codes(groups, len(z))
    keep = (np.bincount(member)[member] >= SMALLEST) & np.isfinite(y[:, 0])
    if not keep.any():
        return float("nan")
    z, y, member = z[keep][:, active(z)], y[keep], codes(member[keep], int(keep.sum()))
    if z.shape[1] == 0:
        return 0.0
    x, target = centred(z, member), centred(y, member)
    common = explained_out_of_fold(x, target, seed)
    each = np.zeros_like(target)
    for group in range(member.max() + 1):
        here = member == group
        each[here] = out_of_fold(x[here], target[here], seed)
    found = [0.0, common, r2(target, each)]
    if common > REAL:
        found.append(_across_slices(z, y, slopes(x, target), seed))
    return max(found)


def _sorted(name: str, value: float, advice: tuple[str, str]) -> Line:
    """The line of an R2 within groups; advice for when all is well, and for when it is not."""
    normal = f"below {DEPTH[0]} (R2 in neighbourhoods)"
    if np.isnan(value):
        return Line(name, value, normal, State.LOOK, f"No neighbourhood has {SMALLEST} observations: judge on more.")
    state = below(value, *DEPTH)
    return Line(name, value, normal, state, advice[state is not State.OK])


def _mixed(z: np.ndarray, category: np.ndarray, member: np.ndarray, name: str) -> Line:
    """The line of the excess of neighbours of the same category."""
    label, normal = f"leakage of {name}", f"below {MIXING[0]} (0 mixed, 1 apart)"
    if not category.any():
        return Line(label, "one level", normal, State.OK, f"All observations have one {name}, so that none can leak.")
    excess, judged = _excess(z, category, member)
    if judged < 1 - ALONE:
        advice = (
            f"{1 - judged:.0%} of observations have neighbourhoods of one {name} only: either its levels share no "
            "state, or z keeps them apart; colour the map by a known type to tell."
        )
        return Line(label, excess if judged else "apart", normal, worst([State.LOOK, below(excess, *MIXING)]), advice)
    advice = f"Within a neighbourhood, the levels of {name} are mixed."
    if excess >= MIXING[0]:
        advice = (
            f"Neighbours in z share their {name} more often than chance has it: look whether states differ between its "
            "levels; else give it to the encoder, too, or train longer."
        )
    return Line(label, excess, normal, below(excess, *MIXING), advice)


def centred(values: Float[np.ndarray, "obs columns"], member: np.ndarray) -> Float[np.ndarray, "obs columns"]:
    """Values without the mean of their group."""
    size = np.bincount(member)[:, None]
    means = np.stack([np.bincount(member, column) for column in values.T], axis=1) / size
    return values - means[member]


def _across_slices(z: np.ndarray, y: np.ndarray, slope: np.ndarray, seed: int) -> float:
    """R2 of y from a given slope, within clusters that do not see the direction of the slope."""
    direction = slope / np.linalg.norm(slope)
    rest = z - (z @ direction) @ direction.T
    if z.shape[1] == 1:
        member = np.zeros(len(z), dtype=np.int64)
    else:
        member = codes(leiden(rest, resolution=0.3, seed=seed), len(z))
    return r2(centred(y, member), centred(z @ slope, member))


def _excess(z: np.ndarray, category: np.ndarray, member: np.ndarray) -> tuple[float, float]:
    """Mean excess of same-category neighbours in groups where categories meet, and the share of observations there."""
    table = np.zeros((member.max() + 1, category.max() + 1))
    np.add.at(table, (member, category), 1)
    meets = _meets(table)[member]
    if not meets.any():
        return 0.0, 0.0
    index, _ = nearest(z)
    near = member[index] == member[:, None]
    same = (near & (category[index] == category[:, None])).sum(1) / np.maximum(near.sum(1), 1)
    chance = (table[member, category] - 1) / np.maximum(table.sum(1)[member] - 1, 1)
    used = meets & near.any(1)
    return float((same - chance)[used].sum() / np.maximum((1 - chance)[used].sum(), 1e-12)), float(meets.mean())


def _meets(table: Float[np.ndarray, "groups categories"]) -> Bool[np.ndarray, "groups"]:
    """Groups large enough whose largest category leaves 5 %, or a quarter of what is left on the whole."""
    size = table.sum(1)
    elsewhere = 1 - table.sum(0).max() / table.sum()
    return (size >= SMALLEST) & (size - table.max(1) >= min(SHARED, elsewhere / 4) * size) & (elsewhere > 0)
