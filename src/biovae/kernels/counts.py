"""log p(x) of negative binomial counts and its gradients, one observation at a time, while it is in the cache.

    l    logits       (rows, features)       mean = exposure softmax(l), or exposure exp(l)
    r    inverse dispersion, (features,)     u = mean / r

    log p(x)           = sum_{x > 0} [rise(x, r) + x (log mean - log(1 + u)) - log x!] - sum_all r log(1 + u)
    d log p / d log mean = x / (1 + u) - r u / (1 + u)
    d log p / d log r    = fall(x, r) + x - x / (1 + u) + r u / (1 + u) - r log(1 + u)

rise(x, r) = log Gamma(x + r) - log Gamma(r) - x log r is the sum of log(1 + j / r) over j < x, fall its derivative in
log r; both are tables at small whole x, and Stirling's series elsewhere (see `distributions.special`). exp and log are
polynomials (Moshier's Cephes, single precision) because those of the system are called one number at a time.
"""

import math

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.rows import log_factorial, starts

LISTED = 32  # counts below it are looked up
ROWS, MOST_CHUNKS = 8, 64  # rows of a chunk, until there are so many chunks
BLOCK = 512  # features of a table that a thread makes at a time
LANES = 16
SHIFT = 8.0
ONE, HALF = np.float32(1), np.float32(0.5)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
ROUND = np.float32(1.5 * 2**23)  # adding it leaves no room for a fraction
HUGE = np.float32(1e37)
LOGS = np.log(np.maximum(np.arange(LISTED), 1)).astype(np.float32)
QUICK = {"reassoc", "contract", "arcp", "nsz"}  # sums in any order; infinities and NaN stay what they are
E1, E2, E3, E4, E5, E6 = (
    np.float32(c) for c in (1.9875691e-4, 1.3981999507e-3, 8.3334519e-3, 4.16657959e-2, 0.166666655, 0.5)
)
L1, L2, L3, L4, L5, L6, L7, L8, L9 = (
    np.float32(c)
    for c in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip


@njit(fastmath={"contract"}, error_model="numpy")  # no reordering: the roundings are the method
def exp(x):
    """e**x; below -87 as at -87, above 88 as at 88."""
    x = min(max(x, np.float32(-87)), np.float32(88))
    n = (x * LOG2_E + ROUND) - ROUND
    f = x - n * LN2_HIGH - n * LN2_LOW
    series = ((((E1 * f + E2) * f + E3) * f + E4) * f + E5) * f + E6
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return (series * f * f + f + ONE) * power.view(np.float32)


@njit(fastmath={"contract"}, error_model="numpy")  # no reordering: the roundings are the method
def log1p(u):
    """log(1 + u), 0 <= u <= HUGE."""
    return log1p_over(u, ONE / (ONE + u))


@njit(fastmath={"contract"}, error_model="numpy")  # no reordering: the roundings are the method
def log1p_over(u, over):
    """log(1 + u), given 1 / (1 + u); what rounding 1 + u lost is put back."""
    v = np.float32(ONE + u)
    bits = v.view(np.int32)
    m = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    high = m > np.float32(1.41421356)
    e = np.float32((bits >> np.int32(23)) - np.int32(127)) + (ONE if high else np.float32(0))
    f = (m * HALF if high else m) - ONE
    series = (((((((L1 * f + L2) * f + L3) * f + L4) * f + L5) * f + L6) * f + L7) * f + L8) * f + L9
    tail = f * f * f * series + e * LN2_LOW - HALF * f * f
    return f + tail + e * LN2_HIGH + (u - (v - ONE)) * over


@compiled(parallel=True, fastmath=QUICK)
def tables(log_r):
    """r, 1 / r, and rise(x, r) - log x! and fall(x, r) at x = 0 ... LISTED - 1, each (LISTED, features)."""
    features = log_r.size
    r, inverse = np.empty(features, np.float32), np.empty(features, np.float32)
    rise, fall = np.empty((LISTED, features), np.float32), np.empty((LISTED, features), np.float32)
    for block in prange((features + BLOCK - 1) // BLOCK):
        own = slice(block * BLOCK, min((block + 1) * BLOCK, features))
        _powers(log_r[own], r[own], inverse[own])
        rise[0][own] = fall[0][own] = np.float32(0)
        for x in range(1, LISTED):
            _next(x, inverse[own], (rise[x - 1][own], fall[x - 1][own]), (rise[x][own], fall[x][own]))
    return r, inverse, rise, fall


@njit(error_model="numpy", fastmath=QUICK)
def _powers(log_r, r, inverse):
    for f in range(log_r.size):
        r[f], inverse[f] = exp(log_r[f]), exp(-log_r[f])


@njit(error_model="numpy", fastmath=QUICK)
def _next(x, inverse, below, above):
    """A row of the tables from the one before."""
    j, log_x = np.float32(x - 1), LOGS[x]
    (rise, fall), (rise_next, fall_next) = below, above
    for f in range(inverse.size):
        ratio = j * inverse[f]
        rise_next[f] = rise[f] + log1p(min(ratio, HUGE)) - log_x
        fall_next[f] = fall[f] - ratio / (ONE + ratio)


@njit(error_model="numpy")
def largest(logit):
    """The maximum, sixteen at a time; a NaN is passed over, its exponential is not."""
    lanes = np.full(LANES, logit[0])
    for start in range(0, logit.size - LANES + 1, LANES):
        for k in range(LANES):
            lanes[k] = logit[start + k] if logit[start + k] > lanes[k] else lanes[k]
    top = lanes[0]
    for k in range(1, LANES):
        top = lanes[k] if lanes[k] > top else top
    for j in range(logit.size - logit.size % LANES, logit.size):
        top = logit[j] if logit[j] > top else top
    return top


@njit(error_model="numpy")
def listed(x):
    """Whether a count is in the tables."""
    return x < LISTED and np.float32(np.int32(x)) == x


@njit(error_model="numpy")
def _large(x, m, log_r):
    """Everything of one non-zero in double precision: log p(x), and its derivatives in log mean and log r."""
    r, a = math.exp(log_r), m - log_r
    tail, product, slope = _stirling(x + r)
    tail_r, product_r, slope_r = _stirling(r)
    growth = math.log1p(x / (r + SHIFT))
    rise = (x + r - 0.5) * growth + x * (math.log1p(SHIFT / r) - 1) + tail - tail_r - math.log(product / product_r)
    softplus = math.log1p(math.exp(a)) if a < 40 else a
    up, down = x / (1 + math.exp(min(a, 600.0))), r / (1 + math.exp(min(-a, 600.0)))
    factorial = log_factorial(x) if x == np.floor(x) else math.lgamma(x + 1)
    log_p = rise - factorial + x * (m - softplus) - r * softplus
    return log_p, up - down, r * (growth + slope - slope_r - softplus) - up + down


@njit(error_model="numpy")
def _stirling(s):
    w = 1 / (s + SHIFT)
    w2, q = w * w, (s * w) * (1 - w)
    a, b, c, d = q, q + 6 * w2, q + 10 * w2, q + 12 * w2
    tail = ((w2 / 1260 - 1 / 360) * w2 + 1 / 12) * w
    change = (1 / a + 1 / b + 1 / c + 1 / d) * (w - 4.5 * w2) * 2
    series = ((w2 / 252 - 1 / 120) * w2 + 1 / 12) * w2 + 0.5 * w
    return tail, a * b * c * d, -change - series


@compiled(parallel=True, fastmath=QUICK)
def negative_binomial(logits, exposure, log_r, weight, entries, obs, share, out):  # noqa: PLR0913
    """log p(x) of each row and, where `out` has room, the gradients of sum(weight * log p).

    Rows are worked on in chunks, each with sums of its own: how many there are depends on the rows alone.

    Args:
        logits: l; its rows are samples of `obs` observations, one sample after the other.
        exposure: One number per row of l.
        log_r: One number per feature.
        weight: One number per row.
        entries: Row, column and value of the counts of the observations, in row order.
        obs: How many observations.
        share: Whether the mean is a share of the exposure.
        out: Takes the gradient in l, (rows, features): float32, or uint16 for the bits of a bfloat16; (0, 0) for none.

    Returns:
        log p and its derivative in log exposure (rows,), its gradients in log r and in a bias of l (features,).
    """
    rows, features = logits.shape
    row, column, value = entries
    r, inverse, rise, fall = tables(log_r)
    pointers = starts(row, obs)
    slopes = out.size > 0
    chunks = min(MOST_CHUNKS, (rows + ROWS - 1) // ROWS)
    log_p, in_log_exposure = np.empty(rows, np.float64), np.empty(rows, np.float32)
    sums = np.zeros((chunks, 2, features if slopes else 0), np.float32)
    for chunk in prange(chunks):
        scratch = np.empty((3, features), np.float32)
        mean, soft, slope = scratch[0], scratch[1], scratch[2]
        turn, base = sums[chunk, 0], sums[chunk, 1]
        for i in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            logit, own = logits[i], slice(pointers[i % obs], pointers[i % obs + 1])
            column_i, value_i, w = column[own], value[own], weight[i]
            atoms = np.empty((2, value_i.size), np.float32)

            top = largest(logit)
            total = exponentials(logit, top, mean)
            log_scale = math.log(exposure[i]) - (math.log(total) if share else -np.float64(top))
            # Large counts are scored apart and leave the dense sums, whose small terms they would drown.
            log_p_large, pull_large = large_ones(column_i, value_i, logit, log_scale - top, log_r, mean, atoms)
            zeros, down = _dense(mean, np.float32(math.exp(log_scale)), (r, inverse), soft, slope, turn, w)
            log_p_small = _small_ones(column_i, value_i, logit, log_scale - top, soft, rise)
            log_p[i] = log_p_large + log_p_small - zeros
            if slopes:
                pull = pull_large - down
                means = (mean, inverse, slope)
                pull += _lifts(column_i, value_i, logit, log_scale - top, means, fall, (turn, w), atoms)
                in_log_exposure[i] = pull
                _write(mean, slope, pull / exposure[i] if share else np.float32(0), w, base, out[i])
    return log_p, in_log_exposure, *_total(sums)


@njit(error_model="numpy", fastmath=QUICK)
def _total(sums):
    """The sums of all chunks, row by row: numba's own sum over an axis goes column by column."""
    total = np.zeros(sums.shape[1:], np.float32)
    for chunk in range(sums.shape[0]):
        for part in range(sums.shape[1]):
            source, to = sums[chunk, part], total[part]
            for j in range(to.size):
                to[j] += source[j]
    return total[0], total[1]


@njit(error_model="numpy", fastmath=QUICK)
def exponentials(logit, top, out):
    """exp(l - top), and its sum."""
    total = np.float32(0)
    for j in range(logit.size):
        out[j] = exp(logit[j] - top)
        total += out[j]
    return total


@njit(error_model="numpy", fastmath=QUICK)
def large_ones(column, value, logit, shift, log_r, mean, atoms):  # noqa: PLR0913
    """The large counts, their means set to 0; what they add to log p and to the derivative in log exposure."""
    log_p, pull = 0.0, np.float32(0)
    for k in range(value.size):
        if not listed(value[k]):
            j = column[k]
            found, slope, turn = _large(np.float64(value[k]), np.float64(logit[j]) + shift, np.float64(log_r[j]))
            log_p += found
            pull += np.float32(slope)
            atoms[1, k] = np.float32(turn)
            mean[j] = np.float32(0)
    return log_p, pull


@njit(error_model="numpy", fastmath=QUICK)
def _dense(mean, scale, dispersion, soft, slope, turn, w):  # noqa: PLR0913
    """Every entry as if it were 0: mean, log(1 + u) and r u / (1 + u), and the sums of r log(1 + u) and of the last."""
    r, inverse = dispersion
    zeros, down = np.float32(0), np.float32(0)
    if turn.size:
        for j in range(mean.size):
            mean[j] = min(mean[j] * scale, HUGE)
            u = min(mean[j] * inverse[j], HUGE)
            over = ONE / (ONE + u)
            soft[j] = log1p_over(u, over)
            slope[j] = r[j] * (u * over)
            at_zero = r[j] * soft[j]
            zeros += at_zero
            down += slope[j]
            turn[j] += w * (slope[j] - at_zero)
    else:
        for j in range(mean.size):
            soft[j] = log1p(min(min(mean[j] * scale, HUGE) * inverse[j], HUGE))
            zeros += r[j] * soft[j]
    return zeros, down


@njit(error_model="numpy", fastmath=QUICK)
def _small_ones(column, value, logit, shift, soft, rise):
    """What the listed counts add to log p."""
    log_p = 0.0
    for k in range(value.size):
        if listed(value[k]):
            j = column[k]
            log_p += rise[int(value[k]), j] + value[k] * (np.float64(logit[j]) + shift - soft[j])
    return log_p


@njit(error_model="numpy", fastmath=QUICK)
def _lifts(column, value, logit, shift, means, fall, turns, atoms):  # noqa: PLR0913
    """x / (1 + u) of every count, taken off the slope of its mean; their sum over the listed counts.

    What the counts add to the gradient in log r is added.
    """
    (mean, inverse, slope), (turn, w) = means, turns
    pull = np.float32(0)
    for k in range(value.size):
        j, x = column[k], value[k]
        if listed(x):
            lift = x / (ONE + min(mean[j] * inverse[j], HUGE))
            pull += lift
            turn[j] += w * (fall[int(x), j] + (x - lift))
            slope[j] -= lift
        else:
            mean[j] = min(exp(np.float32(np.float64(logit[j]) + shift)), HUGE)
            turn[j] += w * atoms[1, k]
            slope[j] = (mean[j] - x) / (ONE + min(mean[j] * inverse[j], HUGE))
    return pull


@njit(error_model="numpy", fastmath=QUICK)
def _write(mean, slope, back, w, base, out):
    """The weighted gradient of a row, and what a softmax takes back of it, added to the sum of all rows."""
    for j in range(mean.size):
        mean[j] = -w * (slope[j] + mean[j] * back)
        base[j] += mean[j]
    if out.itemsize == 4:
        for j in range(mean.size):
            out[j] = mean[j]
    else:  # bfloat16 is the upper half of a float32: rounded to the nearest, to the even one between two
        bits = mean.view(np.uint32)
        for j in range(mean.size):
            odd = (bits[j] >> np.uint32(16)) & np.uint32(1)
            out[j] = np.uint32(bits[j] + np.uint32(0x7FFF) + odd) >> np.uint32(16)
