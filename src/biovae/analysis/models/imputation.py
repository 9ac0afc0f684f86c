"""How well a method fills in counts that it was not shown, and whether anything simple does it better.

    given   counts that every method sees       (obs, features)
    held    counts that are kept back           (obs, features)
    m       expected held counts                (rows, features)

There are two questions:

    masking    a tenth of the counts above zero are set to zero; the error is the median of |m - x| there
    thinning   every molecule goes to one of two halves by the toss of a coin; the error is the Poisson deviance
               2 sum(x log(x / m) - x + m) of the other half, a mean over observations

Masking is what publications report. It looks only where a count was seen, so that it favours whoever exaggerates.
Thinning looks everywhere, zeros and all, and no method is expected to do better than the true mean, whatever the spread
of the counts.

Each method in several settings takes the one that does best on a tenth of the observations, and is scored on the rest.
Differences are paired over observations.

Source: Lopez et al. 2018, doi:10.1038/s41592-018-0229-2 (masking); Batson, Royer and Webber 2019,
doi:10.1101/786269 (thinning as cross-validation of denoising).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.models.comparison import deviances
from biovae.analysis.models.imputers import Imputer
from biovae.errors import InputError

MOST = 5000  # observations that are scored
TUNING = 0.1  # of those, the share that chooses settings
ROWS = 256  # written out at once
DRAWS = 200  # of the bootstrap
CLEAR = 2.0  # standard errors that make a difference
QUESTIONS = {"masking": "median error of hidden counts", "thinning": "deviance of the other half"}


@dataclass(frozen=True)
class Question:
    """Counts in two parts.

    Attributes:
        name: "masking" or "thinning".
        given: What methods see.
        held: What they are asked for; of masking only the entries that were hidden.
        depth: Of `held`, or of the whole where single entries are hidden: what shares are multiplied by, (obs,).
    """

    name: Literal["masking", "thinning"]
    given: scipy.sparse.csr_array
    held: scipy.sparse.csr_array
    depth: Float[np.ndarray, "obs"]


@dataclass(frozen=True)
class Imputation:
    """A model and the simple methods beside it.

    Attributes:
        frame: For each question a row per method, best first: `question`, `method`, `setting`, `error` and its `se`;
            `behind`, by how much its error is above that of the model, with `behind_se`, paired over observations;
            `coverage`, the share of hidden counts inside the model's 90 % interval for a count that is not 0, NaN where
            a method has none.
        model: The name of the method that the others are compared with.
        entries: Counts that were hidden and are scored.
        cells: Observations that are scored.
    """

    frame: pd.DataFrame
    model: str
    entries: int
    cells: int

    def __str__(self) -> str:
        """Who wins each question, in a sentence each."""
        return "\n".join(self._verdict(name, rows) for name, rows in self.frame.groupby("question", sort=False))

    def _verdict(self, question: str, rows: pd.DataFrame) -> str:
        what = QUESTIONS[question] + (f" ({self.entries:,})" if question == "masking" else "")
        mine = rows[rows["method"] == self.model].iloc[0]
        rival = rows[rows["method"] != self.model].iloc[0]
        by = f"{rival['error']:.4g}, a difference of {abs(rival['behind']):.2g} ± {rival['behind_se']:.2g}"
        said = f"{question.capitalize()}, {what} in {self.cells:,} observations: "
        if abs(rival["behind"]) <= CLEAR * rival["behind_se"]:
            said += f"{self.model} ({mine['error']:.4g}) and {rival['method']} are level ({by})."
        elif rival["behind"] > 0:
            said += f"{self.model} wins with {mine['error']:.4g}; {rival['method']} comes next with {by}."
        else:
            said += f"{rival['method']} wins with {by}; {self.model} has {mine['error']:.4g} and does not beat it."
        if np.isfinite(mine["coverage"]):
            said += f" Of the hidden counts {mine['coverage']:.0%} lie in its 90 % intervals."
        return said


def hide(
    counts: scipy.sparse.csr_array, share: float = 0.1, seed: int = 0
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """The counts with a share of those above zero set to zero, and what was taken out.

    Args:
        counts: (obs, features).
        share: Of the counts above zero, each chosen with this probability.
        seed: Of the choice.

    Raises:
        InputError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"expected a share between 0 and 1 to hide, found {share:g}: 0.1 is usual.")
    given = scipy.sparse.csr_array(counts).copy()
    given.eliminate_zeros()
    held, hidden = given.copy(), np.random.default_rng(seed).random(given.nnz) < share
    given.data[hidden] = 0
    held.data[~hidden] = 0
    for part in (given, held):
        part.eliminate_zeros()
    return given, held


def scored_rows(observations: int, seed: int = 0) -> tuple[Int[np.ndarray, "tuning"], Int[np.ndarray, "scored"]]:
    """Observations that choose settings, and those that are scored, at most 5,000 together."""
    rows = np.random.default_rng(seed).permutation(observations)[:MOST]
    cut = max(1, int(TUNING * len(rows)))
    return np.sort(rows[:cut]), np.sort(rows[cut:])


def compare_imputers(
    question: Question,
    methods: Mapping[str, Sequence[Imputer]],
    rows: tuple[Int[np.ndarray, "tuning"], Int[np.ndarray, "scored"]],
    seed: int = 0,
) -> pd.DataFrame:
    """A row per method, best first: see `Imputation.frame`, without `coverage`. The first method is the model.

    Args:
        question: What is given and what is asked.
        methods: By name, each in one setting or several.
        rows: Observations that choose settings, and those that are scored.
        seed: Of the bootstrap of medians.

    Raises:
        InputError: Nothing was held back of the rows that are scored.
    """
    if not question.held[rows[1]].nnz:
        raise InputError("expected counts held back of the observations that are scored, found none: hide more.")
    chosen = {name: _best(question, tried, rows[0]) for name, tried in methods.items()}
    found = {name: losses(question, imputer, rows[1]) for name, imputer in chosen.items()}
    owner = _owners(question, rows[1])
    centre, spread = (_medians if question.name == "masking" else _means)(pd.DataFrame(found), owner, seed)
    model = next(iter(methods))
    frame = pd.DataFrame(
        {
            "question": question.name,
            "method": [*methods],
            "setting": [chosen[name].setting for name in methods],
            "error": centre.to_numpy(),
            "se": spread.std().to_numpy(),
            "behind": (centre - centre[model]).to_numpy(),
            "behind_se": spread.sub(spread[model], axis=0).std().to_numpy(),
        }
    )
    return frame.sort_values("error", kind="stable", ignore_index=True)


def losses(question: Question, imputer: Imputer, rows: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "losses"]:
    """|m - x| of every held entry, row by row; or the deviance of every row."""
    floor = question.given.sum(0)
    least = floor[floor > 0].min() / max(question.given.sum(), 1)
    parts = []
    for part in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS)):
        depth = question.depth[part]
        m = imputer.shares(part) * depth[:, None]
        held = question.held[part]
        if question.name == "masking":
            at = held.tocoo()
            parts.append(np.abs(m[at.row, at.col] - at.data))
        else:
            parts += deviances(held, [m], least * depth)
    return np.concatenate(parts)


def _best(question: Question, tried: Sequence[Imputer], rows: np.ndarray) -> Imputer:
    if len(tried) == 1 or (question.name == "masking" and not question.held[rows].nnz):
        return tried[0]
    centre = np.median if question.name == "masking" else np.mean
    return min(tried, key=lambda imputer: float(centre(losses(question, imputer, rows))))


def _owners(question: Question, rows: np.ndarray) -> np.ndarray:
    """The position in `rows` of the observation that each loss belongs to."""
    entries = np.diff(question.held[rows].indptr) if question.name == "masking" else np.ones(len(rows), dtype=int)
    return np.repeat(np.arange(len(rows)), entries)


def _means(found: pd.DataFrame, owner: np.ndarray, seed: int) -> tuple[pd.Series, pd.DataFrame]:
    """The mean, and draws from its bootstrap over observations."""
    weight = np.random.default_rng(seed).multinomial(len(owner), np.full(len(owner), 1 / len(owner)), DRAWS)
    return found.mean(), pd.DataFrame(weight @ found.to_numpy() / len(owner), columns=found.columns)


def _medians(found: pd.DataFrame, owner: np.ndarray, seed: int) -> tuple[pd.Series, pd.DataFrame]:
    """The median over entries, and draws from its bootstrap over observations."""
    cells = int(owner.max()) + 1
    weight = np.random.default_rng(seed).multinomial(cells, np.full(cells, 1 / cells), DRAWS)
    drawn = {}
    for name, values in found.items():
        order = np.argsort(values.to_numpy(), kind="stable")
        ordered, whose = values.to_numpy()[order], owner[order]
        middle = [np.cumsum(each[whose]) for each in weight]
        drawn[name] = [ordered[np.searchsorted(total, total[-1] / 2)] for total in middle]
    return found.median(), pd.DataFrame(drawn)
