"""Softmax and negative binomial in one pass over the logits, on a GPU: log p(x) and its gradients.

    l    logits (rows, features)      log mean = log exposure + l - lse     lse = log sum exp l, or 0
    r    inverse dispersion           a = log mean - log r,  s = sigmoid(a),  sp = softplus(a)

    log p(x)           = sum_{x > 0} [rise(x, r) - log x! + x (a - sp)] - sum_all r sp
    d log p / d l      = x (1 - s) - r s - share (sum of the same over the row)
    d log p / d log r  = sum_{x > 0} [fall(x, r) - x (1 - s)] + sum_all r (s - sp)

with rise = log Gamma(x + r) - log Gamma(r) and fall = r (digamma(x + r) - digamma(r)). Five kernels: rows and entries
forward, rows, entries and columns backward. The entries, few and with large terms that cancel, are in double precision.
Nothing of the size of the logits is written but their gradient. `distributions.negative_binomial` is the reference.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

SparseEntries = tuple[Tensor, Tensor, Tensor]  # row and column in int64, value in float32

FEATURES = 1024  # of a row that a program reads at a time
ENTRIES = 256  # non-zeros of a program
COLUMNS, ROWS = 128, 64  # the piece of the matrix that a program of the columns' kernel sums
SHIFT = tl.constexpr(8.0)


@triton.jit
def _log1p(u):
    """log(1 + u), what rounding 1 + u lost put back."""
    v = 1.0 + u
    return tl.log(v) + (u - (v - 1.0)) / v


@triton.jit
def _softplus(a):
    return tl.maximum(a, 0.0) + _log1p(tl.exp(-tl.abs(a)))


@triton.jit
def _sigmoid(a):
    e = tl.exp(-tl.abs(a))
    return tl.where(a >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _stirling(s):
    """Tail, product and slope of `distributions.special`."""
    w = 1.0 / (s + SHIFT)
    w2 = w * w
    q = s * w * (1.0 - w)
    b, c, d = q + 6.0 * w2, q + 10.0 * w2, q + 12.0 * w2
    tail = ((w2 / 1260.0 - 1.0 / 360.0) * w2 + 1.0 / 12.0) * w
    change = (1.0 / q + 1.0 / b + 1.0 / c + 1.0 / d) * (w - 4.5 * w2) * 2.0
    series = ((w2 / 252.0 - 1.0 / 120.0) * w2 + 1.0 / 12.0) * w2 + 0.5 * w
    return tail, q * b * c * d, -change - series


@triton.jit
def _rows_forward(  # noqa: PLR0913
    logits, exposure, log_r, log_scale, log_p, pull, features, SHARE: tl.constexpr, BLOCK: tl.constexpr
):
    """log exposure - lse of each row, - sum r sp, and - sum r s."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * features
    scale = tl.log(tl.load(exposure + row))
    if SHARE:
        top = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, features, BLOCK):
            j = start + tl.arange(0, BLOCK)
            value = tl.load(logits + j, mask=j < features, other=float("-inf"))
            new = tl.maximum(top, value)
            safe = tl.where(new == float("-inf"), 0.0, new)
            total = total * tl.exp(top - safe) + tl.exp(value - safe)
            top = new
        highest = tl.max(top, 0)
        scale -= highest + tl.log(tl.sum(total * tl.exp(top - highest), 0))
    score, slope = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, features, BLOCK):
        j = start + tl.arange(0, BLOCK)
        inside = j < features
        dispersion = tl.load(log_r + j, mask=inside, other=0.0)
        a = tl.load(logits + j, mask=inside, other=0.0) + scale - dispersion
        r = tl.where(inside, tl.exp(dispersion), 0.0)
        score += r * _softplus(a)
        slope += r * _sigmoid(a)
    tl.store(log_scale + row, scale)
    tl.store(log_p + row, -tl.sum(score, 0).to(tl.float64))
    tl.store(pull + row, -tl.sum(slope, 0))


@triton.jit
def _entry(logits, log_scale, log_r, at, column):
    """a, r, 1 - sigmoid(a) and softplus(a) of an entry, in double precision."""
    w = tl.load(log_r + column).to(tl.float64)
    a = tl.load(logits + at).to(tl.float64) + log_scale.to(tl.float64) - w
    return a, tl.exp(w), 1.0 - _sigmoid(a), _softplus(a)


@triton.jit
def _entries_forward(  # noqa: PLR0913
    logits, log_scale, log_r, row_of, column_of, value_of, log_p, pull, count, features, BLOCK: tl.constexpr
):
    """What the non-zeros add to log p, and to the derivative in log exposure."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < count
    row = tl.load(row_of + k, mask=inside, other=0)
    column = tl.load(column_of + k, mask=inside, other=0)
    x = tl.load(value_of + k, mask=inside, other=0.0).to(tl.float64)
    scale = tl.load(log_scale + row)
    a, r, down, softplus = _entry(logits, scale, log_r, row * features + column, column)
    tail, product, _ = _stirling(x + r)
    tail_r, product_r, _ = _stirling(r)
    tail_1, product_1, _ = _stirling(x + 1.0)
    growth = _log1p(x / (r + SHIFT))
    rise = (x + r - 0.5) * growth + x * (tl.log(r + SHIFT) - 1.0) + tail - tail_r - tl.log(product / product_r)
    log_factorial = (x + 0.5) * tl.log(x + 1.0 + SHIFT) - (x + 1.0 + SHIFT) + 0.9189385332046727 + tail_1
    log_factorial -= tl.log(product_1)
    score = rise - log_factorial + x * (a - softplus)
    counted = inside & (x > 0)
    tl.atomic_add(log_p + row, tl.where(counted, score, 0.0), mask=counted, sem="relaxed")
    tl.atomic_add(pull + row, tl.where(counted, x * down, 0.0).to(tl.float32), mask=counted, sem="relaxed")


@triton.jit
def _rows_backward(  # noqa: PLR0913
    logits, log_scale, log_r, weight, exposure, pull, grad, features, SHARE: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of the logits as if every count were 0: the entries are added afterwards."""
    row = tl.program_id(0).to(tl.int64)
    scale, g = tl.load(log_scale + row), tl.load(weight + row)
    back = tl.load(pull + row) / tl.load(exposure + row)
    for start in range(0, features, BLOCK):
        j = start + tl.arange(0, BLOCK)
        inside = j < features
        log_mean = tl.load(logits + row * features + j, mask=inside, other=0.0) + scale
        dispersion = tl.load(log_r + j, mask=inside, other=0.0)
        slope = -tl.exp(dispersion) * _sigmoid(log_mean - dispersion)
        if SHARE:
            slope -= tl.exp(log_mean) * back
        tl.store(grad + row * features + j, g * slope, mask=inside)


@triton.jit
def _entries_backward(  # noqa: PLR0913
    logits,
    log_scale,
    log_r,
    weight,
    row_of,
    column_of,
    value_of,
    grad,
    grad_log_r,
    count,
    features,
    BLOCK: tl.constexpr,
):
    """What the non-zeros add to both gradients; a position occurs once, but for padded ones that add nothing."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < count
    row = tl.load(row_of + k, mask=inside, other=0)
    column = tl.load(column_of + k, mask=inside, other=0)
    x = tl.load(value_of + k, mask=inside, other=0.0).to(tl.float64)
    scale, g = tl.load(log_scale + row), tl.load(weight + row).to(tl.float64)
    at = row * features + column
    a, r, down, softplus = _entry(logits, scale, log_r, at, column)
    _, _, high = _stirling(x + r)
    _, _, low = _stirling(r)
    fall = r * (_log1p(x / (r + SHIFT)) + high - low)
    counted = inside & (x > 0)
    lift = tl.where(counted, x * down, 0.0)
    tl.atomic_add(grad + at, (g * lift).to(tl.float32), mask=counted, sem="relaxed")
    tl.atomic_add(
        grad_log_r + column, (g * (tl.where(counted, fall, 0.0) - lift)).to(tl.float32), mask=counted, sem="relaxed"
    )


@triton.jit
def _columns_backward(  # noqa: PLR0913
    logits, log_scale, log_r, weight, grad_log_r, rows, features, COLUMNS: tl.constexpr, ROWS: tl.constexpr
):
    """The gradient of log r as if every count were 0."""
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = j < features
    dispersion = tl.load(log_r + j, mask=inside, other=0.0)
    total = tl.zeros((COLUMNS,), tl.float32)
    first = tl.program_id(1) * ROWS
    for row in range(first, tl.minimum(first + ROWS, rows)):
        at = tl.cast(row, tl.int64) * features + j
        a = tl.load(logits + at, mask=inside, other=0.0) + tl.load(log_scale + row) - dispersion
        total += tl.load(weight + row) * (_sigmoid(a) - _softplus(a))
    tl.atomic_add(grad_log_r + j, tl.exp(dispersion) * total, mask=inside, sem="relaxed")


class Scored(NamedTuple):
    """What the forward kernels leave for the backward ones, a number per row."""

    log_p: Float[Tensor, "rows"]  # double precision
    log_scale: Float[Tensor, "rows"]  # log exposure - lse
    pull: Float[Tensor, "rows"]  # derivative in log exposure


def score(
    logits: Float[Tensor, "rows features"],
    exposure: Float[Tensor, "rows"],
    log_r: Float[Tensor, "features"],
    x: SparseEntries,
    *,
    share: bool,
) -> Scored:
    """log p(x) of each row, in nats.

    Args:
        logits: l, contiguous.
        exposure: One number per row.
        log_r: Within the bounds of `NegativeBinomial`.
        x: Row, column and value of the counts.
        share: Whether means are shares of the exposure.
    """
    rows, features = logits.shape
    log_p = logits.new_empty(rows, dtype=torch.float64)
    log_scale, pull = logits.new_empty(rows), logits.new_empty(rows)
    _rows_forward[(rows,)](logits, exposure, log_r, log_scale, log_p, pull, features, SHARE=share, BLOCK=FEATURES)
    count = len(x[0])
    if count:
        _entries_forward[(triton.cdiv(count, ENTRIES),)](
            logits, log_scale, log_r, *x, log_p, pull, count, features, BLOCK=ENTRIES
        )
    return Scored(log_p, log_scale, pull)


def gradients(  # noqa: PLR0913
    logits: Float[Tensor, "rows features"],
    exposure: Float[Tensor, "rows"],
    log_r: Float[Tensor, "features"],
    x: SparseEntries,
    scored: Scored,
    weight: Float[Tensor, "rows"],
    *,
    share: bool,
) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "features"]]:
    """Gradients of sum(weight * log p) in the logits and in log r."""
    rows, features = logits.shape
    grad, grad_log_r = torch.empty_like(logits), torch.zeros_like(log_r)
    _, log_scale, pull = scored
    _rows_backward[(rows,)](
        logits, log_scale, log_r, weight, exposure, pull, grad, features, SHARE=share, BLOCK=FEATURES
    )
    grid = (triton.cdiv(features, COLUMNS), triton.cdiv(rows, ROWS))
    _columns_backward[grid](logits, log_scale, log_r, weight, grad_log_r, rows, features, COLUMNS=COLUMNS, ROWS=ROWS)
    count = len(x[0])
    if count:
        _entries_backward[(triton.cdiv(count, ENTRIES),)](
            logits, log_scale, log_r, weight, *x, grad, grad_log_r, count, features, BLOCK=ENTRIES
        )
    return grad, grad_log_r
