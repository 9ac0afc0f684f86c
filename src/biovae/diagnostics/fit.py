"""Did training arrive where it was sent: gain over the null, tightness, final beta, convergence, events.

    elbo  bound of each held-out observation, beta 1, in nats, (obs,)
    null  log p(x | c) of the same likelihood without z, (obs,)
    iwae  importance-weighted bound, (obs,)

All bounds are of the same observations, in the same order.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from biovae.diagnostics.verdict import Line, State, below

BARELY = 4.0  # standard errors: a gain that is there, and no more
LOOSE = 0.3  # of the gain that the better bound sees
RISING = 0.05  # of the rise under the full objective, in its last tenth: an exponential approach of 1.5 time constants
OVERFIT = 0.25  # of what the best weights gained
FEW = 5  # evaluations under the full objective, below which a curve has no shape
HALVINGS = 8  # of the learning rate: then 0.4 % of it is left


def mean_and_error(values: Float[np.ndarray, "obs"]) -> tuple[float, float]:
    """The mean and its standard error; the error of a single value is infinite."""
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return float(values.mean()), float(error)


def gain(elbo: Float[np.ndarray, "obs"], null: Float[np.ndarray, "obs"]) -> Line:
    """Mean of elbo - null, paired over held-out observations: what the latent space buys, in nats.

    Broken within 2 standard errors of 0, where a model without z does as well; look below 4.
    """
    value, error = mean_and_error(np.asarray(elbo, dtype=np.float64) - null)
    normal = f"above {2 * error:.2g} nats (2 SE)"
    if not value > 2 * error:
        advice = (
            "The latent space buys nothing that averages do not give: it overfitted or learned nothing; use more data, "
            "fewer features, a smaller network or more dropout."
        )
        return Line("gain over the null", value, normal, State.BROKEN, advice)
    if value < BARELY * error:
        advice = "The gain is real but barely so: judge it on more held-out observations before reading the map."
        return Line("gain over the null", value, normal, State.LOOK, advice)
    advice = "The latent space predicts observations better than the averages do."
    return Line("gain over the null", value, normal, State.OK, advice)


def tightness(elbo: Float[np.ndarray, "obs"], iwae: Float[np.ndarray, "obs"], null: Float[np.ndarray, "obs"]) -> Line:
    """Mean of iwae - elbo, in nats: how much the bound understates the model because q is not the true posterior.

    Look where it exceeds 30 % of what the better bound gains over the null, and 1 nat. A bound above its better one by
    more than chance is broken, because it cannot be.
    """
    gap, error = mean_and_error(np.asarray(iwae, dtype=np.float64) - elbo)
    bought = float(np.mean(np.asarray(iwae, dtype=np.float64) - null))
    normal = f"below 1 nat or {LOOSE:.0%} of the gain"
    if not gap > -2 * error - 1e-3:
        advice = "The importance-weighted bound lies below the plain one, which cannot be: score both with more draws."
        return Line("gap to tighter bound", gap, normal, State.BROKEN, advice)
    if gap > 1 and gap > LOOSE * bought:
        advice = (
            "The encoder describes the posterior poorly, and the bound understates the model: train longer, or use a "
            "wider encoder, a low-rank posterior or the importance-weighted objective."
        )
        return Line("gap to tighter bound", gap, normal, State.LOOK, advice)
    advice = "The encoder finds about the z that the decoder means; the bound can be taken at its word."
    return Line("gap to tighter bound", gap, normal, State.OK, advice)


def objective(final_beta: float, asked: float) -> Line:
    """The beta in force at the end, which must be the one that was asked for."""
    normal = f"{asked:g}, as asked"
    if not np.isclose(final_beta, asked, rtol=1e-6, atol=1e-12):
        advice = (
            f"Training ended at beta {final_beta:.3g}, not {asked:g}, and optimised another objective than yours: "
            "train for more epochs or shorten the warm-up."
        )
        return Line("final beta", float(final_beta), normal, State.BROKEN, advice)
    advice = "The objective at the end is the one that was asked for."
    return Line("final beta", float(final_beta), normal, State.OK, advice)


def convergence(
    history: pd.DataFrame,
    null: float | None = None,
    stopped: str | None = None,
    *,
    validation_null: float | None = None,
) -> Line:
    """Whether the validation bound had stopped rising when training ended, and whether it fell again.

    Only evaluations under the final beta count. Look where the last tenth of their steps brought more than 5 % of their
    rise and 0.1 nats (still rising), where the end lies below the best by more than a quarter of the gain and 1 nat
    (overfitting; the best weights are kept), where there are fewer than five, where nothing was held out, or where the
    run was stopped. Broken where the bound never rose above the null of the same observations: then z learned nothing
    that holds for others.

    Args:
        history: Columns `epoch`, `step`, `beta`, `validation_elbo`, `validation_kl`.
        null: Bound without z, from which the gain is counted; from the first full evaluation where it is not given.
        stopped: Why the run ended early, if it did.
        validation_null: Bound without z of the validation observations themselves.
    """
    name, normal = "convergence", "flat at the end"
    known = history.dropna(subset=["validation_elbo"])
    full = known[np.isclose(known["beta"], known["beta"].iloc[-1])] if len(known) else known
    if len(history) and known.empty:
        advice = (
            "No observation was held out: when to stop, and this verdict, rest on those that the model learned from: "
            "hold some out (validation, test)."
        )
        return Line(name, "nothing held out", normal, State.LOOK, advice)
    if stopped:
        advice = f"The run ended before its time ({stopped}): resume it, or judge what there is with care."
        return Line(name, stopped, normal, State.LOOK, advice)
    if len(full) < FEW:
        advice = f"There are {len(full)} evaluations under the full objective, too few to see a curve: train longer."
        return Line(name, f"{len(full)} evaluations", normal, State.LOOK, advice)
    bound = _aim(full)
    best, end = int(bound.argmax()), float(np.median(bound[-3:]))
    where = f"{full['epoch'].iloc[best]:g} of {full['epoch'].iloc[-1]:g}"
    rise, fall = _late_rise(bound, full["step"].to_numpy(dtype=np.float64)), bound[best] - end
    if validation_null is not None and not full["validation_elbo"].max() > validation_null:
        advice = "No epoch beat the averages on validation data: use more data, fewer features, or more dropout."
        return Line(name, f"below null, {where}", normal, State.BROKEN, advice)
    if rise > max(RISING * (bound[best] - bound[0]), 0.1):
        advice = f"The validation bound still rose by {rise:.2g} nats in the last tenth of training: train longer."
        return Line(name, f"still rising, {where}", normal, State.LOOK, advice)
    if fall > max(OVERFIT * (bound[best] - (bound[0] if null is None else null)), 1.0):
        advice = (
            f"The validation bound fell by {fall:.2g} nats after its best epoch: the best weights were kept, and a "
            "smaller network, more dropout or more data would let it train longer."
        )
        return Line(name, f"overfitting, {where}", normal, State.LOOK, advice)
    advice = "The validation bound had stopped rising; training longer would not help."
    return Line(name, f"best {where}", normal, State.OK, advice)


def _late_rise(bound: Float[np.ndarray, "evaluations"], step: Float[np.ndarray, "evaluations"]) -> float:
    """What the last tenth of the steps added to the best bound before it."""
    late = step > step[-1] - 0.1 * (step[-1] - step[0])
    return float(bound[late].max(initial=-np.inf) - bound[~late].max(initial=-np.inf)) if not late.all() else 0.0


def _aim(history: pd.DataFrame) -> Float[np.ndarray, "evaluations"]:
    """The validation bound at the beta that was in force, which is what training maximised."""
    return (history["validation_elbo"] - (history["beta"] - 1) * history["validation_kl"]).to_numpy(dtype=np.float64)


def events(happened: Sequence[str]) -> Line:
    """Bad steps that were undone; each halved the learning rate, so that from eight on hardly any of it was left."""
    if not happened:
        advice = "Every step of the run was finite."
        return Line("events of the run", 0.0, "0 bad steps", State.OK, advice)
    advice = (
        f"Steps that were not finite were undone and the learning rate halved each time (first: {happened[0]}): "
        "look for extreme values in the data, or lower the learning rate."
    )
    return Line("events of the run", float(len(happened)), "0 bad steps", below(len(happened), 1, HALVINGS), advice)
