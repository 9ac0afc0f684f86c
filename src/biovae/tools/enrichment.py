"""Which sets of features go with a latent dimension: by our own test, or by decoupler's."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pandas as pd
import scipy.stats

from biovae.analysis import Dimensions, enrich
from biovae.analysis.axes.association import LEAST, adjusted
from biovae.errors import InputError, closest, first, listed

Sets: TypeAlias = Mapping[str, Sequence[str] | str]


def enrichment(found: Dimensions, sets: Sets, method: Literal["camera", "ulm"] = "camera") -> pd.DataFrame:
    """Test sets of features on every dimension of `bv.tl.dimensions`, which features rank by their scores.

    Both methods ask whether the features of a set rise, or fall, more than the others do. "camera" compares ranks, and
    allows for the correlation between the features of a set. "ulm" regresses the scores on membership, and takes
    features as independent, so that it calls more sets; it comes from decoupler, and so do its weighted networks and
    its other methods, which read `found.contrasts`.

    Args:
        found: From `bv.tl.dimensions`.
        sets: Names of features by name of the set; those the model does not have are left out.
        method: "camera", or "ulm" with the extra: pip install 'biovae[enrichment]'.

    Returns:
        A row per dimension and set: `features` (of the set that are known), `p` (two-sided), `fdr` over all rows, and
        `auc` (camera, see `biovae.analysis.enrich`) or `t` (ulm). Sets of fewer than 5 known features have no test.

    Raises:
        InputError: No set has a known feature, the method is not known, or decoupler is not installed.

    Source: Wu and Smyth 2012, doi:10.1093/nar/gks461 (CAMERA); Badia-i-Mompel et al. 2022, doi:10.1093/bioadv/vbac016
    (decoupler).
    """
    if not isinstance(found, Dimensions):
        raise InputError(f"expected what bv.tl.dimensions gives, found {type(found).__name__}: ask it first.")
    if not isinstance(sets, Mapping):
        raise InputError(f"expected sets as {{name: features}}, found {type(sets).__name__}: give each set a name.")
    if method not in METHODS:
        raise InputError(f"expected a method of enrichment, found {method!r}: {closest(method, [*METHODS])}")
    return METHODS[method](found.contrasts, sets)


def _camera(contrasts: pd.DataFrame, sets: Sets) -> pd.DataFrame:
    return enrich(contrasts.to_numpy().T, list(contrasts), sets)


def _ulm(contrasts: pd.DataFrame, sets: Sets) -> pd.DataFrame:
    """The t of decoupler's ulm; p and fdr are ours, as decoupler adjusts within each dimension."""
    known = {name: contrasts.columns.intersection(pd.Index(listed(members)).unique()) for name, members in sets.items()}
    if not any(map(len, known.values())):
        raise InputError(
            f"expected sets with features of the model ({first(contrasts.columns)}), found none: use the same kind of "
            "names."
        )
    sizes = {name: len(members) for name, members in known.items()}
    network = [(name, feature) for name, members in known.items() for feature in members]
    t = pd.DataFrame(index=contrasts.index, columns=[*known], dtype=float)
    if max(sizes.values()) >= LEAST:
        net = pd.DataFrame(network, columns=["source", "target"])
        t.update(_decoupler().mt.ulm(contrasts, net, tmin=LEAST, empty=False)[0])
    frame = t.melt(ignore_index=False, var_name="set", value_name="t").reset_index()
    frame["dimension"], frame["features"] = frame["dimension"].astype(int), frame["set"].map(sizes)
    frame["p"] = 2 * scipy.stats.t.sf(frame["t"].abs(), contrasts.shape[1] - 2)
    return adjusted([frame], ["dimension", "set", "features", "t", "p", "fdr"])


METHODS: dict[str, Callable[[pd.DataFrame, Sets], pd.DataFrame]] = {"camera": _camera, "ulm": _ulm}


def _decoupler() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        try:
            import decoupler
        except ImportError as error:
            raise InputError(
                "expected decoupler for method 'ulm', found it not installed: pip install 'biovae[enrichment]', or use "
                "method 'camera'."
            ) from error
    return decoupler
