"""Which model to take: candidates scored on the same held-out observations, beside what needs no network.

    scores      log-probability of every held-out observation, (obs, candidates), in nats
    difference  score - score of the best, paired over observations
    se          of a difference: sqrt(variance over observations / n + variance over seeds / seeds)

Two candidates are called as good where they differ by less than two standard errors; then the smaller one will do.

Source: paired differences as in Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biovae.errors import InputError, first

NEEDED = ("latent", "parameters", "pit", "seconds")
SEPARATE = 2.0  # standard errors
UNEVEN = 0.05  # distance of PIT from uniform that is worth a look


@dataclass(frozen=True)
class Choice:
    """Candidates in the order of their scores.

    Attributes:
        frame: A row per candidate and floor, best first: `name`, `floor`, `latent`, `parameters`, `mean` and `se` of
            the score, `difference` from the best candidate and its paired `difference_se`, `pit` (largest distance of
            held-out PIT from uniform), `seconds` of a fit.
        best: The candidate with the highest score.
        alike: Other candidates within two standard errors of it, smallest first.
        floors: What is as good as the best candidate without a network, or better.
        seeds: Fits of each candidate.
        scored: What the score is.
    """

    frame: pd.DataFrame
    best: str
    alike: tuple[str, ...]
    floors: tuple[str, ...]
    seeds: int
    scored: str

    def __str__(self) -> str:
        """What to take, and why."""
        rows = self.frame.set_index("name")
        best = rows.loc[self.best]
        lines = [f"Take {self.best}: {best['mean']:,.1f} ± {best['se']:.1f} nats per observation ({self.scored})."]
        if self.floors:
            lines = [
                f"No candidate predicts better than {_and(self.floors)}, within two standard errors: take that, or "
                f"train longer or on more data. The best candidate is {self.best}, {_apart(rows, self.floors[0])}."
            ]
        lines += [*self._alike(rows), *self._behind(rows), *self._beaten(rows)]
        if np.isfinite(best["pit"]):
            judged = "as it should" if best["pit"] < UNEVEN else f"{UNEVEN:g} and more is worth a look"
            lines.append(f"Calibration of {self.best}: PIT lies {best['pit']:.3f} from uniform ({judged}).")
        fits = "One fit each: what another seed would change is not in these errors, so repeat with several seeds."
        lines.append(fits if self.seeds == 1 else f"Means of {self.seeds} seeds, whose spread is in the errors.")
        return "\n".join(lines)

    def _alike(self, rows: pd.DataFrame) -> list[str]:
        """What will do as well: the smaller ones, then the others."""
        own = rows.loc[self.best, "parameters"]
        smaller = [name for name in self.alike if rows.loc[name, "parameters"] < own]
        others = [name for name in self.alike if name not in smaller]
        lines = []
        if smaller:
            sizes = f"{rows.loc[smaller[0], 'parameters']:,.0f} parameters instead of {own:,.0f}"
            lines.append(f"As good within two standard errors, and smaller: {_list(rows, smaller)}; {sizes}.")
        if others:
            lines.append(f"As good within two standard errors, and no smaller: {_list(rows, others)}.")
        return lines

    def _behind(self, rows: pd.DataFrame) -> list[str]:
        behind = [n for n in rows.index[~rows["floor"]] if n != self.best and n not in self.alike]
        return [f"Behind: {_list(rows, behind)}."] if behind else []

    def _beaten(self, rows: pd.DataFrame) -> list[str]:
        beaten = [name for name in rows.index[rows["floor"]] if name not in self.floors]
        return [f"Without a network: {_list(rows, beaten)}."] if beaten else []


def choose(
    scores: Sequence[pd.DataFrame], about: pd.DataFrame, floors: pd.DataFrame | None = None, scored: str = "score"
) -> Choice:
    """Rank candidates, and say which differ.

    Args:
        scores: A frame per seed, a row per held-out observation and a column per candidate, in nats.
        about: A row per candidate: `latent`, `parameters`, `pit`, `seconds`.
        floors: Scores of what needs no network, of the same observations; a column each.
        scored: What a score is, for the reader.

    Raises:
        InputError: There is no score, or one that is not finite, or a column is missing.
    """
    if not scores or not len(scores[0].columns) or len(scores[0]) < 2:
        raise InputError("expected scores of 2 observations and 1 candidate at least, found fewer: hold out more.")
    missing = [name for name in NEEDED if name not in about]
    if missing:
        raise InputError(f"expected {', '.join(NEEDED)} of each candidate, found no {first(missing)}.")
    names = list(scores[0])
    if floors is not None:  # they have no seeds: the same beside each
        scores = [pd.concat([frame, floors], axis=1) for frame in scores]
    mean = sum(scores[1:], start=scores[0]) / len(scores)
    broken = [str(name) for name in mean if not np.isfinite(mean[name]).all()]
    if broken:
        raise InputError(f"expected finite scores, found others of {first(broken)}: leave those candidates out.")
    best = mean[names].mean().idxmax()
    frame = _rows(mean, scores, best).join(about[[*NEEDED]]).assign(floor=~mean.columns.isin(names))
    frame = frame.sort_values("mean", ascending=False, kind="stable").rename_axis("name").reset_index()
    near = frame["difference"] > -SEPARATE * frame["difference_se"]
    candidates = frame[near & ~frame["floor"] & (frame["name"] != best)].sort_values("parameters", kind="stable")
    order = ["name", "floor", "latent", "parameters", "mean", "se", "difference", "difference_se", "pit", "seconds"]
    alike, as_good = tuple(candidates["name"]), tuple(frame["name"][near & frame["floor"]])
    return Choice(frame[order], str(best), alike, as_good, len(scores), scored)


def _rows(mean: pd.DataFrame, scores: Sequence[pd.DataFrame], best: object) -> pd.DataFrame:
    """Scores and paired differences, a row per column."""
    behind = mean.sub(mean[best], axis=0)
    each = pd.DataFrame([frame.mean() for frame in scores])  # a row per seed
    alone, between = (e.var().fillna(0) / len(scores) for e in (each, each.sub(each[best], axis=0)))
    return pd.DataFrame(
        {
            "mean": mean.mean(),
            "se": np.sqrt(mean.sem() ** 2 + alone),
            "difference": behind.mean(),
            "difference_se": np.sqrt(behind.sem() ** 2 + between),
        }
    )


def _apart(rows: pd.DataFrame, name: str) -> str:
    """The distance of the best candidate from another row, from the best candidate's side."""
    row = rows.loc[name]
    word = "behind" if row["difference"] > 0 else "ahead"
    return f"{abs(row['difference']):,.1f} ± {row['difference_se']:.1f} nats {word}"


def _list(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """Names with their difference from the best candidate."""
    said = (f"{n} ({rows.loc[n, 'difference']:+,.1f} ± {rows.loc[n, 'difference_se']:.1f})" for n in names)
    return ", ".join(said)


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
