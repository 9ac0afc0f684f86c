"""What would these observations look like in the other condition? Two ways to ask a model, beside what needs none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import (
    PCA,
    Judged,
    Predicted,
    References,
    Response,
    judge_predictions,
    limits,
    log_normalise,
    pca,
    pooled_intervals,
    respond,
)
from biovae.analysis.groups.response import ENOUGH
from biovae.data.covariates import label
from biovae.errors import InputError, closest, first
from biovae.model import VAE
from biovae.model.inference import everything, posterior_draws
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, one_group, whole
from biovae.tools.labels import Labels, left_out, levels, present
from biovae.tools.moved import Moved, seen_by, swapped
from biovae.training.progress import passing
from biovae.training.working import working

LEAST = 10  # observations of a reference type on either side
DRAWS = 20  # for intervals
COMPONENTS = 20  # in which clouds are compared
METHOD, BASELINE = "VAE", "additive"
Rows = Mapping[tuple[str, int], np.ndarray]  # by group and side: 0 source, 1 target


@dataclass(frozen=True)
class Counterfactual:
    """Observations of one group as they would be in the other condition.

    Attributes:
        frame: A row per feature, all means of log1p(counts per 10,000): `feature`; `source`, as observed; `prediction`
            with its 90 % interval `lower`, `upper`; `additive`, the baseline; `change`, prediction minus source.
        response: The three guesses that the prediction is mixed of, and their shares.
        way: "latent arithmetic" or "covariate swap".
        asked: Group, source and target.
        rows: Positions of the source observations that were looked at.
        counts: One draw of what the decoder says of each of them, at its own depth, (obs, features).
        moved: Those observations and the reference groups, as the model sees them.
        basis: Principal components of these, in which clouds are compared.
        fits: Whose mean the prediction is; all else is said by the first.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    response: Response
    way: str
    asked: tuple[str, str, str]
    rows: np.ndarray
    counts: scipy.sparse.csr_array
    moved: Moved
    basis: PCA
    fits: int = 1
    said: tuple[str, ...] = ()

    def beside(self, observed: AnnData | MuData) -> pd.DataFrame:
        """`frame` with the means that were `observed`; for `bv.pl.counterfactual`."""
        after = self.moved.logs_of(observed, np.arange(observed.n_obs))
        return self.frame.assign(observed=np.asarray(after.mean(0)).ravel())

    def score(self, observed: AnnData | MuData, *, cells: int = 1000, seed: int = 0) -> Judged:
        """Compare the prediction with what was observed, beside the additive baseline and no change.

        Args:
            observed: The group in the target condition.
            cells: At most so many observations of it.
            seed: Of the choice of observations, and of the bootstrap.
        """
        few = np.sort(np.random.default_rng(seed).permutation(observed.n_obs)[:cells])
        after = self.moved.logs_of(observed, few).toarray()
        before = self.moved.logs[self.moved.at(self.rows)].toarray()
        start, told = before.mean(0), self.frame["prediction"].to_numpy()
        drawn = log_normalise(self.counts).toarray()
        methods = {METHOD: Predicted(told, self._places(drawn + told - drawn.mean(0)))}
        for name, change in {
            BASELINE: self.response.guesses["average"].to_numpy(),
            "similar types": self.response.guesses["similar"].to_numpy(),
            "decoder alone": self.response.guesses["decoded"].to_numpy(),
            "no change": np.zeros(len(start)),
        }.items():
            methods[name] = Predicted(start + change, self._places(before + change))
        judged = judge_predictions(methods, before, (after, self._places(after)), (METHOD, BASELINE), seed)
        inside = (after.mean(0) >= self.frame["lower"]) & (after.mean(0) <= self.frame["upper"])
        return replace(judged, coverage=float(inside.mean()))

    def _places(self, logs: Float[np.ndarray, "obs features"]) -> Float[np.ndarray, "obs components"]:
        return (logs - self.basis.mean) @ self.basis.loadings

    def __str__(self) -> str:
        """What it was learned from, whether it is to be preferred to the additive baseline, and what changes most."""
        group, source, target = self.asked
        shares = self.response.shares
        most = self.frame.reindex(self.frame["change"].abs().sort_values(ascending=False).index)["feature"].head(5)
        said = (
            f"{group}, {source} to {target}, by {self.way}, learned from {first(self.response.weights.index, 8)}: "
            f"{shares['average']:.2f} of their average response, {shares['similar']:.2f} of that of similar types, "
            f"{shares['decoded']:.2f} of the decoder's. Most change: {', '.join(most)}. "
        ) + (
            f"The prediction is the mean of {self.fits} fits, the rest is said by the first. " if self.fits > 1 else ""
        )
        return " ".join([said + self._tried(), *self.said])

    def _tried(self) -> str:
        missed = self.response.missed
        if np.isnan(missed["mixture"]):
            return "With one reference type nothing could be tried out: take it with caution."
        better = missed["mixture"] < missed["average"]
        return (
            f"Reference types, each predicted from the others, are missed by {missed['mixture']:.3f}, by the additive "
            f"baseline by {missed['average']:.3f}: "
            + ("better, though the decoder saw them." if better else "nothing is gained over the baseline.")
        )


def counterfactual(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    column: str,
    source: str,
    target: str,
    *,
    group: Mapping[str, str],
    modality: str | None = None,
    cells: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> Counterfactual:
    """Predict a group of observations in a condition that it was not seen in, from groups that were seen in both.

    Where the condition is a covariate of the decoder, it is swapped: f(z, target) against f(z, source). Elsewhere z is
    moved as the other groups moved, near ones more. What the decoder says is one of three guesses at the change of
    each feature's mean; see `biovae.analysis.groups.response` for the others, and for how they are mixed. The additive
    baseline, the average change of the other groups, is always beside it: deep models often lose to it.

    Of an ensemble the prediction is the mean of its fits, with limits for another one.

    Observations of `group` in the target condition are not looked at. For an honest test leave them out of the fit,
    too. Whether the mixture beats the baseline is only known once `score` can be asked.

    Args:
        vae: A fitted model of counts.
        data: The observations; not changed. Those without a condition or a group have no part.
        column: Column of `obs` with the condition (or donor, or batch).
        source: The condition that the group was seen in.
        target: The one that is asked about.
        group: Column and level that are asked about, {"cell_type": "B cell"}; its other levels are learned from.
        modality: Which one; None takes the first.
        cells: At most so many observations of each group and condition.
        seed: Of every draw.
        progress: Show a bar on a terminal, lines elsewhere.

    Returns:
        `frame` with a row per feature; `score(observed)` where the truth is known.

    Raises:
        InputError: The modality is not one of counts, a column or level is unknown, the group has no observation in the
            source condition, or no other group has ten in both.
    """
    model_and_data(vae, data, seed=seed)
    whole(1, cells=cells)
    m = vae.index(modality)
    if vae.schema.modalities[m].support is not Support.COUNTS:
        raise InputError("expected a modality of counts, found another kind: responses are changes of log counts.")
    kind, (source, target) = one_group(group, "group"), (label(source), label(target))
    conditions, kinds = levels(data, column), levels(data, kind[0])
    rows = _rows((conditions, kinds), (column, source, target), kind, (cells, seed))
    swap, every = swapped(vae, column, source, target), np.concatenate([*rows.values()])
    asked = (kind[1], source, target)
    seen = [seen_by(fit, data, m, every, swap, seed) for fit in vae.members]
    found = _among_fits([_predicted(each, rows, asked, show=progress) for each in seen])
    return replace(found, said=left_out(conditions, column) + left_out(kinds, kind[0]))


def _among_fits(found: list[Counterfactual]) -> Counterfactual:
    """The first, with the mean prediction of all fits, and limits for another one."""
    if len(found) == 1:
        return found[0]
    told, lower, upper = (np.array([each.frame[name] for each in found]) for name in ("prediction", "lower", "upper"))
    both, frame = pooled_intervals(told, lower, upper), found[0].frame
    frame = frame.assign(prediction=both.mean, lower=np.maximum(both.lower, 0), upper=both.upper)
    return replace(found[0], frame=frame.assign(change=both.mean - frame["source"]), fits=len(found))


def _predicted(moved: Moved, rows: Rows, asked: tuple[str, str, str], *, show: bool) -> Counterfactual:
    own = rows[asked[0], 0]
    pairs = {name: (rows[name, 0], rows[name, 1]) for name, side in rows if side == 1}
    references = moved.references(pairs)
    shifts = moved.shifts([*pairs.values()])
    sources = [before for before, _ in pairs.values()]

    def decoded(k: int | None, weights: np.ndarray) -> np.ndarray:
        return moved.change(own if k is None else sources[k], weights @ shifts)

    with working("learning responses", show=show):
        response = respond(references, moved.z[moved.at(own)].mean(0), decoded)
    start = _mean(moved, own)
    lower, upper = _interval(moved, response, references, ([*pairs.values()], own), show=show)
    frame = pd.DataFrame(
        {
            "feature": moved.vae.schema.modalities[moved.m].features,
            "source": start,
            "prediction": np.maximum(start + response.change, 0),
            "lower": lower,
            "upper": upper,
            "additive": start + response.guesses["average"].to_numpy(),
        }
    )
    frame["change"] = frame["prediction"] - frame["source"]
    counts = moved.drawn(own, response.weights.to_numpy() @ shifts)
    way = "latent arithmetic" if moved.swap is None else "covariate swap"
    return Counterfactual(frame, response, way, asked, own, counts, moved, pca(moved.logs, COMPONENTS, moved.seed))


def _mean(moved: Moved, rows: np.ndarray) -> Float[np.ndarray, "features"]:
    return np.asarray(moved.logs[moved.at(rows)].mean(0)).ravel()


def _rows(
    labels: tuple[Labels, Labels], condition: tuple[str, str, str], kind: tuple[str, str], effort: tuple[int, int]
) -> Rows:
    """Rows by group and side (0 source, 1 target): the group that is asked about, and those seen on both sides."""
    name, source, target = condition
    groups, group = kind
    if source == target:
        raise InputError(f"expected two different levels of {name!r}, found {source!r} twice: name another target.")
    conditions, kinds = labels
    for values, wanted, where in ((conditions, (source, target), name), (kinds, (group,), groups)):
        for each in wanted:
            if each not in present(values):
                raise InputError(f"expected a level of {where!r}, found {each!r}: {closest(each, present(values))}")
    cells, seed = effort
    rng = Noise(seed).numpy()
    found = {
        (each, side): np.flatnonzero((kinds == each) & (conditions == level))
        for each in present(kinds)
        for side, level in enumerate((source, target))
    }
    if len(found[group, 0]) < 2:
        raise InputError(
            f"expected two observations of {group!r} or more where {name!r} is {source!r}, found "
            f"{len(found[group, 0])}: ask about another group."
        )
    both = [each for each, side in found if side == 0 and min(len(found[each, s]) for s in (0, 1)) >= LEAST]
    kept = [(group, 0), *((each, side) for each in both if each != group for side in (0, 1))]
    if len(kept) == 1:
        others = [each for each in present(kinds) if each != group]
        raise InputError(
            f"expected another level of {groups!r} with at least {LEAST} observations in {source!r} and in {target!r}, "
            f"found none{f' among {first(others)}' if others else ', nor any other level'}: no response to learn from."
        )
    return {key: np.sort(rng.permutation(found[key])[:cells]) for key in kept}


def _interval(
    moved: Moved,
    response: Response,
    references: References,
    rows: tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray],
    *,
    show: bool,
) -> Float[np.ndarray, "2 features"]:
    """Limits of the predicted means: z, observations and reference types drawn again, and what types have of their own.

    Types are drawn by a Bayesian bootstrap, their responses by their standard errors; what the mixture missed in the
    types that are known is added as a draw from a t distribution with one degree of freedom per type.
    """
    (pairs, own), rng, count = rows, np.random.default_rng(moved.seed), len(references.names)
    z = posterior_draws(moved.vae.network, moved.observations, everything(moved.observations), Noise(moved.seed), DRAWS)
    near, even = response.weights.to_numpy(), np.minimum(references.size, ENOUGH)
    out = []
    for number, drawn in enumerate(passing(z, DRAWS, "drawing", show=show)):
        tilt = rng.exponential(size=count)
        similar, average = (weight * tilt / (weight @ tilt) for weight in (near, even))
        change = references.change + references.error * rng.normal(size=references.change.shape)
        picked = own[rng.integers(len(own), size=len(own))]
        decoded = moved.change(picked, similar @ moved.shifts(pairs, drawn), drawn, samples=1, draw=number + 1)
        guesses = np.stack([average @ change, similar @ change, decoded], axis=1)
        of_its_own = response.spread * rng.standard_t(count, size=len(response.spread))
        out.append(np.maximum(_mean(moved, picked) + guesses @ response.shares.to_numpy() + of_its_own, 0))
    return limits(np.stack(out))
