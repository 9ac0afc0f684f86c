"""Does z carry anything, and does the decoder listen?

    mean      of q(z | x), (obs, latent)
    variance  of q(z | x), the diagonal, (obs, latent)
    kl        KL(q(z | x) || p(z)) by latent dimension, or in one column where it has no such parts, in nats

Unused dimensions are no fault in themselves: a bound at beta 1 prunes a dimension whose signal is weaker than the noise
(Lucas et al. 2019, NeurIPS, arXiv:1911.02469), and ten dimensions for three types leave some over. They are a fault
where training took away what the data hold: everything, or some dimensions while beta above 1 raised the price of
information, or while a straight line of the same dimension explains much more of the data.
"""

import numpy as np
from jaxtyping import Bool, Float

from biovae.analysis.models.comparison import Explained
from biovae.diagnostics.fit import mean_and_error
from biovae.diagnostics.verdict import Line, State

USED = 0.1  # nats: less does not tell two equal halves of the data apart by eye (that takes 0.69)
MOVED = 0.01  # variance of posterior means over the data, by which a unit counts as active
SHORT, POOR = 0.8, 0.5  # of what PCA explains of held-out data
LARGEST = 2000  # observations whose posteriors are mixed
BLOCK = 256


def active(mean: Float[np.ndarray, "obs latent"]) -> Bool[np.ndarray, "latent"]:
    """Which posterior means vary over the data by more than 0.01 (in units of the prior's variance).

    Source: Burda, Grosse and Salakhutdinov 2016, ICLR, arXiv:1509.00519.
    """
    return np.asarray(mean, dtype=np.float64).var(0) > MOVED


def kl_per_dimension(kl: Float[np.ndarray, "obs groups"]) -> Line:
    """The mean KL summed over dimensions, in nats: the most that z can say about x; broken below 0.1."""
    each = np.asarray(kl, dtype=np.float64).mean(0)
    total = float(each.sum())
    state = State.OK if total >= USED else State.BROKEN
    largest = ", ".join(f"{value:.2g}" for value in np.sort(each)[::-1][:5])
    advice = f"z carries information; of {len(each)} dimensions the largest carry {largest} nats."
    if state is not State.OK:
        advice = "z carries no information, so that every observation sits at the same place: see posterior collapse."
    return Line("KL from the prior", total, f"above {USED} nats", state, advice)


def active_units(mean: Float[np.ndarray, "obs latent"], kl: Float[np.ndarray, "obs latent"] | None = None) -> Line:
    """How many posterior means vary over the data by more than 0.01; broken where none does.

    Args:
        mean: Posterior means.
        kl: By dimension; then the advice also counts dimensions above 0.1 nats, which do not depend on a variance.
    """
    latent, units = np.shape(mean)[1], int(active(mean).sum())
    counted = ""
    if kl is not None and np.shape(kl)[1] == latent:
        counted = f", {int((np.mean(kl, 0) > USED).sum())} carry more than {USED} nats"
    if units == 0:
        advice = "No latent dimension reacts to the data: see posterior collapse."
        return Line("active units", 0.0, f"1 to {latent}", State.BROKEN, advice)
    advice = f"{units} of {latent} latent dimensions react to the data{counted}; "
    advice += "spare ones do no harm." if units < latent else "as all are in use, a larger latent space may hold more."
    return Line("active units", float(units), f"1 to {latent}", State.OK, advice)


def information(
    mean: Float[np.ndarray, "obs latent"], variance: Float[np.ndarray, "obs latent"], seed: int = 0
) -> tuple[float, float]:
    """I(x; z) = E log q(z | x) - log q(z), and its limit log n, in nats.

    q(z) is the mixture of the posteriors of the same observations, 2,000 of them at most, and one z is drawn from each.
    The estimate cannot exceed log n: near it, the truth may be larger. KL(q(z) || p) is the mean KL less this.

    Source: Hoffman and Johnson 2016, ELBO surgery; Dieng et al. 2019, AISTATS, arXiv:1807.04863.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(mean))[:LARGEST]
    middle = np.asarray(mean, dtype=np.float64)[rows]
    spread = np.sqrt(np.maximum(np.asarray(variance, dtype=np.float64)[rows], 1e-12))
    z = middle + spread * rng.standard_normal(middle.shape)
    constant = np.log(spread).sum(1)
    own = -0.5 * (((z - middle) / spread) ** 2).sum(1) - constant
    mixed = np.empty(len(z))
    for start in range(0, len(z), BLOCK):
        distance = ((z[start : start + BLOCK, None] - middle) / spread) ** 2
        mixed[start : start + BLOCK] = np.logaddexp.reduce(-0.5 * distance.sum(-1) - constant, axis=1)
    limit = float(np.log(len(z)))
    return float(np.mean(own - mixed) + limit), limit


def mutual_information(
    mean: Float[np.ndarray, "obs latent"], variance: Float[np.ndarray, "obs latent"], seed: int = 0
) -> Line:
    """See `information`; broken below 0.1 nats, where z does not tell observations apart."""
    value, limit = information(mean, variance, seed)
    normal = f"{USED} to {limit:.1f} nats (log n)"
    if not value >= USED:
        advice = "z does not tell observations apart: see posterior collapse."
        return Line("mutual information", value, normal, State.BROKEN, advice)
    advice = f"z tells about {np.exp(value):,.0f} kinds of observation apart."
    if value > limit - 0.5:
        advice = f"z tells nearly all of {np.exp(limit):,.0f} observations apart; the estimate cannot go higher."
    return Line("mutual information", value, normal, State.OK, advice)


def collapse(  # noqa: PLR0913 - each is a measurement of its own
    kl: Float[np.ndarray, "obs groups"],
    own: Float[np.ndarray, "obs"],
    shuffled: Float[np.ndarray, "obs"],
    elbo: Float[np.ndarray, "obs"],
    null: Float[np.ndarray, "obs"],
    latent: int,
    *,
    beta: float = 1.0,
    explained: Explained | None = None,
) -> Line:
    """Whether training emptied z, wholly or in some dimensions; spare dimensions of a healthy model are not called.

    Wholly collapsed (broken): the KL is below 0.1 nats, or the decoder is insensitive to z: the reconstruction loses
    less than 0.1 nats, or 2 standard errors, when each observation is decoded at another one's z. Few observations
    may resemble one another: where 2 standard errors leave room for all of the gain, this is no proof (look).

    Collapsed in part: some dimensions carry less than 0.1 nats and beta is above 1 (look); or the model explains
    significantly less of held-out data than PCA with as many dimensions: below 80 % of it (look), below half (broken).

    Args:
        kl: See the file head.
        own: log p(x | z) at the observation's own z.
        shuffled: At the z of another observation.
        elbo: Bound of the same observations.
        null: Bound without z.
        latent: Dimensions of z.
        beta: In force at the end of training.
        explained: Held-out reconstruction of PCA and of the model.
    """
    each = np.asarray(kl, dtype=np.float64).mean(0)
    loss = np.asarray(own, dtype=np.float64) - shuffled
    gain = np.asarray(elbo, dtype=np.float64) - null
    heard, error = mean_and_error(loss)
    if not (each.sum() >= USED and heard > USED):
        return _line("whole", State.BROKEN, _emptied(gain, beta, each.sum()))
    if not heard > 2 * error:
        if _won(gain) and heard + 2 * error > gain.mean():
            return _line("not certain", State.LOOK, _too_few(heard, error, len(loss)))
        return _line("whole", State.BROKEN, _emptied(gain, beta, each.sum()))
    unused = int((each < USED).sum()) if len(each) == latent else 0
    some = f"{unused} of {latent} dimensions"
    if explained is not None and (state := _shortfall(explained)) is not State.OK:
        return _line(some if unused else "in part", state, _explains_less(explained, beta))
    if unused and beta > 1:
        return _line(some, State.LOOK, _dear(some, beta))
    spare = f"; {some} are spare, which does no harm." if unused else "."
    return _line("none", State.OK, f"The decoder listens: the z of another observation costs {heard:,.3g} nats{spare}")


def _line(value: str, state: State, advice: str) -> Line:
    return Line("posterior collapse", value, "none", state, advice)


def _too_few(heard: float, error: float, observations: int) -> str:
    return (
        f"The z of another observation costs {heard:,.3g} nats, but {observations} held-out observations are too few "
        f"to be sure ({2 * error:,.3g} would be chance): hold out more."
    )


def _explains_less(explained: Explained, beta: float) -> str:
    return (
        f"The model explains {max(explained.vae, 0):.0%} of held-out {explained.measure} where PCA of the same "
        f"dimension explains {explained.pca:.0%}: {'lower beta to 1, ' if beta > 1 else ''}train longer, use free bits "
        "or a weaker decoder."
    )


def _dear(some: str, beta: float) -> str:
    return (
        f"{some} carry nothing, and beta {beta:g} charges {beta:g} nats for one nat of information: compare with "
        "beta 1 before concluding that the data need no more."
    )


def _shortfall(explained: Explained) -> State:
    """How far the model stays below PCA, if by more than chance."""
    if not explained.pca - explained.vae > 2 * explained.se or explained.pca <= 0:
        return State.OK
    share = explained.vae / explained.pca
    return State.OK if share >= SHORT else State.LOOK if share >= POOR else State.BROKEN


def _won(gain: np.ndarray) -> bool:
    """Whether the bound rose over the null by more than chance."""
    bought, error = mean_and_error(gain)
    return bought > max(2 * error, USED)


def _emptied(gain: np.ndarray, beta: float, total: float) -> str:
    if beta > 1:
        return f"Beta {beta:g} made information so dear that z was emptied: fit with beta 1, or use free bits."
    if _won(gain):
        return (
            f"The decoder explains the data without z (a gain of {gain.mean():.3g} nats and {max(total, 0):.2g} nats "
            "in z): leave out covariates that name the biology, or weaken the decoder."
        )
    return (
        "Every observation sits at the same place, and the decoder does not listen to it: if the data hold structure, "
        "train with a slower rise of beta, free bits, or a lower learning rate."
    )
