"""The kinds of measurement biovae models; each constructor is a choice of parts.

To add one: write a constructor that returns a `Modality`, in a file of its own, and add a row to CASES in
tests/test_modalities.py. If its values need a view or a likelihood that does not exist, write that first.
"""

from biovae.modalities.binary import binary
from biovae.modalities.continuous import continuous
from biovae.modalities.modality import Modality
from biovae.modalities.rna import rna
from biovae.modalities.views import LogCounts, RootCounts, Standardised

__all__ = ["LogCounts", "Modality", "RootCounts", "Standardised", "binary", "continuous", "rna"]
