"""Where cells can be: a map of two axes on which every state is a straight piece with a tube around it.

    u       place of a cell on the map             (cells, 2)
    piece   start and end of a state               (states, 2, 2); a discrete type is a piece of length 0
    reach   radius of every tube: no cell lies farther from its piece

Types stand on the left on an arc, 4 apart; a trajectory runs from the middle to the right. Two types that face a gap
are stretched towards each other, and so are two types joined by a bridge: from the cells alone an unsampled bridge and
a gap look alike, and only the truth tells them apart. What no tube covers is forbidden.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from biovae.datasets.scenarios import States

APART = 4.0  # between neighbouring types
STRETCH = 0.2  # of the way to the other type, at a gap or a bridge
REACH = 3.0  # standard deviations at which the spread around a piece is cut
LINEAGES = "ABCDEF"
BRIDGE = "intermediate"


@dataclass(frozen=True)
class Landscape:
    """The states of a simulated world, in the order of their shares.

    `pseudotime` holds the values at start and end of each piece, not a number for discrete types; `gaps` the free
    way between two stretched types, from tube to tube.
    """

    names: tuple[str, ...]
    pieces: Float[np.ndarray, "states 2 2"]
    pseudotime: Float[np.ndarray, "states 2"]
    shares: Float[np.ndarray, "states"]
    gaps: Float[np.ndarray, "gaps 2 2"]
    spread: float

    @property
    def reach(self) -> float:
        """Radius of the tubes."""
        return REACH * self.spread

    def forbidden(self, u: Float[np.ndarray, "cells 2"]) -> Bool[np.ndarray, "cells"]:
        """Whether no state reaches a place. The bridge is permitted even where it is unsampled."""
        return distance(u, self.pieces).min(1) > self.reach * (1 + 1e-6) + 1e-9

    def draw(
        self, cells: int, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "cells"], Float[np.ndarray, "cells"], Float[np.ndarray, "cells 2"]]:
        """State, position along its piece (0 to 1), and place of each cell.

        Positions are uniform; the distance from the piece is normal in both axes and cut at `reach`, so that what
        is forbidden is empty and not merely rare.
        """
        state = rng.choice(len(self.names), size=cells, p=self.shares)
        along = rng.random(cells)
        radius = self.spread * np.sqrt(-2 * np.log1p(rng.random(cells) * math.expm1(-(REACH**2) / 2)))
        angle = 2 * np.pi * rng.random(cells)
        around = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        start, end = self.pieces[state, 0], self.pieces[state, 1]
        return state, along, start + along[:, None] * (end - start) + around


def distance(
    u: Float[np.ndarray, "cells 2"], pieces: Float[np.ndarray, "pieces 2 2"]
) -> Float[np.ndarray, "cells pieces"]:
    """Distance of every place to every straight piece."""
    start, way = pieces[:, 0], pieces[:, 1] - pieces[:, 0]
    offset = u[:, None] - start
    length = (way**2).sum(-1)
    along = np.clip((offset * way).sum(-1) / np.where(length > 0, length, 1), 0, 1)
    return np.linalg.norm(offset - along[..., None] * way, axis=-1)


def lay_out(states: States) -> Landscape:
    """Place the states on the map; the same states always lie in the same places."""
    radius = max(APART, APART * (states.types - 1) / math.pi)
    types, gaps = _types(states, radius)
    lineages = _lineages(states.branches, radius)
    named = lineages | types
    pieces = np.array([piece for piece, _ in named.values()]).reshape(-1, 2, 2)
    share = np.arange(1, len(named) + 1) ** -states.unevenness
    upright = np.array([1.0, -1.0 if states.mirrored else 1.0])
    return Landscape(
        names=tuple(named),
        pieces=pieces * upright,
        pseudotime=np.array([time for _, time in named.values()]),
        shares=share / share.sum(),
        gaps=gaps * upright,
        spread=states.spread,
    )


def _types(states: States, radius: float) -> tuple[dict, np.ndarray]:
    """The types on an arc around the origin, the bridge between the last two, the gap between the first two."""
    angle = math.pi / 2 + np.linspace(0, math.pi, states.types)
    sites = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    pieces = np.stack([sites, sites], axis=1)
    gaps = np.empty((0, 2, 2))
    if states.gap:
        _stretch(pieces, 0, 1)
        ends = pieces[:2, 1]
        inward = REACH * states.spread * (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        gaps = np.array([[ends[0] + inward, ends[1] - inward]])
    timeless = (math.nan, math.nan)
    if states.bridge == "absent":
        return {f"type {k + 1}": (piece, timeless) for k, piece in enumerate(pieces)}, gaps
    _stretch(pieces, -2, -1)
    named = {f"type {k + 1}": (piece, timeless) for k, piece in enumerate(pieces)}
    return named | {BRIDGE: (pieces[-2:, 1].copy(), timeless)}, gaps


def _stretch(pieces: np.ndarray, one: int, other: int) -> None:
    way = STRETCH * (pieces[other, 0] - pieces[one, 0])
    pieces[one, 1] += way
    pieces[other, 1] -= way


def _lineages(branches: int, radius: float) -> dict:
    """The progenitor from the origin to the fork, and the lineages from there; pseudotime is the way from the root."""
    if not branches:
        return {}
    fork = np.array([0.5 * radius, 0.0])
    angle = np.linspace(math.pi / 4, -math.pi / 4, branches) if branches > 1 else np.zeros(1)
    tips = fork + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    root = np.zeros(2)
    named = {"progenitor": (np.stack([root, fork]), (0.0, 1 / 3))}
    return named | {
        f"lineage {letter}": (np.stack([fork, tip]), (1 / 3, 1.0)) for letter, tip in zip(LINEAGES, tips, strict=False)
    }
