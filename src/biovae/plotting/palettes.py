"""Colours that stay apart for readers with any kind of colour vision, on a white page and on a dark one.

The first seven are those of Okabe and Ito; their eighth, black, is left out because it vanishes on a dark page. Further
ones are found in CIELAB: each next colour is the one farthest from all before it, where a distance is the smallest over
normal, protan and deutan vision. A longer palette therefore begins with the shorter one.

Source: Okabe and Ito 2008, Color Universal Design, jfly.uni-koeln.de/color; Machado, Oliveira and Fernandes 2009, A
physiologically-based model for simulation of color vision deficiency, doi:10.1109/TVCG.2009.113.
"""

from functools import lru_cache

import numpy as np

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
MISSING = "#a9b0b8"  # grey, for values that are not there
OTHER = "#6b7480"  # darker grey, for the categories beyond the longest palette
LONGEST = 30
CONTINUOUS = "viridis"

# linear RGB -> linear RGB as a dichromat sees it (Machado et al. 2009, severity 1)
_PROTAN = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
_DEUTAN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
VISIONS = {"normal": np.eye(3), "protan": np.array(_PROTAN), "deutan": np.array(_DEUTAN)}

# linear RGB -> XYZ, divided by the white point D65
_TO_XYZ = np.array(((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750),
                    (0.0193339, 0.1191920, 0.9503041))) / np.array(((0.95047,), (1.0,), (1.08883,)))  # fmt: skip


def palette(size: int) -> tuple[str, ...]:
    """`size` colours as "#rrggbb", at most `LONGEST`; the same first colours whatever the size."""
    return _grown()[:size] if size > len(OKABE_ITO) else OKABE_ITO[:size]


def separation(colors: tuple[str, ...], vision: str = "normal") -> float:
    """The smallest CIELAB distance between two of the colours; below 5 they are hard to tell apart."""
    lab = _lab(_rgb(colors), VISIONS[vision])
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(distance[~np.eye(len(lab), dtype=bool)].min())


@lru_cache(maxsize=1)
def _grown() -> tuple[str, ...]:
    levels = np.linspace(0, 1, 18)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = _lab(candidates, VISIONS["normal"])
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    readable = (lab[:, 0] > 40) & (lab[:, 0] < 86) & (chroma > 18) & (chroma < 72)  # on both pages; calm, but no greys
    candidates = candidates[readable]
    chosen = [*OKABE_ITO]
    nearest = _distance(candidates, _rgb((*chosen, MISSING, OTHER))).min(axis=1)
    while len(chosen) < LONGEST:
        best = candidates[nearest.argmax()]
        chosen.append("#" + "".join(f"{round(255 * level):02x}" for level in best))
        nearest = np.minimum(nearest, _distance(candidates, best[None])[:, 0])
    return tuple(chosen)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest distance over the kinds of vision, (a, b)."""
    pairs = [(_lab(a, vision), _lab(b, vision)) for vision in VISIONS.values()]
    return np.min([np.linalg.norm(p[:, None] - q[None], axis=-1) for p, q in pairs], axis=0)


def _rgb(colors: tuple[str, ...]) -> np.ndarray:
    return np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])


def _lab(rgb: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB colours (n, 3) in [0, 1], as seen with this vision."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ vision.T, 0, 1) @ _TO_XYZ.T
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)
