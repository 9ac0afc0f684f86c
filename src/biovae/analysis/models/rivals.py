"""Does a VAE do better than PCA and ICA? Asked at the beta that was chosen for the purpose, not at the best of many.

    vae         a measure at the chosen beta, mean over seeds
    value       of PCA or ICA, which have one try
    difference  vae - value
    se          sqrt(paired variance over held-out observations + variance over seeds)

The highest of eight betas beats one try of PCA even where nothing was gained: it is told, and does not win. What is
known of few seeds is told by Student's t: their part of the standard error is widened until two of it hold 95 %.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.stats

MEASURES = {
    "reconstruction": "Held-out reconstruction",
    "accuracy": "Label accuracy of held-out neighbours",
    "mig": "MIG",
    "disentanglement": "DCI disentanglement",
    "sap": "SAP",
}
SEPARATE = 2.0  # standard errors
COLUMNS = ("measure", "beta", "vae", "rival", "value", "difference", "se", "verdict", "best", "best_beta")


def against(frame: pd.DataFrame, chosen: Mapping[str, float]) -> pd.DataFrame:
    """The VAE beside each rival on each measure that was taken.

    Args:
        frame: Of a sweep: rows of the VAE, by `beta` and `seed`, and a row per rival. The paired standard error of a
            difference over observations is `<measure>_se_<rival>` in the rows of the VAE, such as `accuracy_se_pca`;
            without it the seeds alone tell.
        chosen: The beta at which each measure is asked.

    Returns:
        A row per measure and rival: see the file head; `verdict` is "ahead of" or "behind" where the difference is more
        than two standard errors, "alike with" where it is less, and "not judged against" where nothing is known of it;
        `best` is the highest mean of any beta, at `best_beta`.
    """
    fits, rivals = frame[frame["method"] == "VAE"], frame[frame["method"] != "VAE"]
    rows = []
    for measure, beta in chosen.items():
        if measure not in rivals or fits[measure].isna().all():
            continue
        curve, here = fits.groupby("beta")[measure].mean(), fits[fits["beta"] == beta]
        for name, value in rivals.set_index("method")[measure].dropna().items():
            row = {"measure": measure, "beta": beta, "vae": curve[beta], "rival": name, "value": value}
            se = _error(here, measure, str(name))
            row |= {"difference": curve[beta] - value, "se": se, "verdict": _verdict(curve[beta] - value, se)}
            rows.append(row | {"best": curve.max(), "best_beta": curve.idxmax()})
    return pd.DataFrame(rows, columns=[*COLUMNS])


def told(found: pd.DataFrame, betas: int) -> list[str]:
    """A line per measure of `against`."""
    lines = []
    for measure, rows in found.groupby("measure", sort=False):
        own = rows.iloc[0]
        each = ", ".join(map(_beside, rows.to_dict("records")))
        best = f" Best of {betas} betas: {own['best']:.2f} at {own['best_beta']:g}." if betas > 1 else ""
        lines.append(f"{MEASURES[str(measure)]} at beta {own['beta']:g}: VAE {own['vae']:.2f}, {each}.{best}")
    if (found["verdict"] == "not judged against").any():
        lines.append("What is not judged needs several seeds: one fit says nothing of the next.")
    return lines


def _error(fits: pd.DataFrame, measure: str, rival: str) -> float:
    """See the file head; NaN of one seed without pairs."""
    name, seeds = f"{measure}_se_{rival.split(',')[0].lower()}", len(fits)
    paired = float(fits[name].mean()) if name in fits else np.nan
    if seeds < 2:
        return paired
    wide = scipy.stats.t.ppf(0.975, seeds - 1) / SEPARATE
    return float(np.hypot(0 if np.isnan(paired) else paired, fits[measure].sem() * max(wide, 1)))


def _verdict(difference: float, se: float) -> str:
    if np.isnan(se):
        return "not judged against"
    if abs(difference) <= SEPARATE * se:
        return "alike with"
    return "ahead of" if difference > 0 else "behind"


def _beside(row: dict[str, object]) -> str:
    far = "" if np.isnan(row["se"]) else f" ({row['difference']:+.3f} ± {row['se']:.3f})"  # type: ignore[call-overload]
    return f"{row['verdict']} {row['rival']} {row['value']:.2f}{far}"
