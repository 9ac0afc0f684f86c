"""What the modalities of a MuData hold, by their values."""

from mudata import MuData

from biovae.data.locate import holds
from biovae.schema import Support

KINDS = {Support.BINARY: "binary", Support.COUNTS: "rna", Support.REALS: "continuous"}  # narrowest first


def recognise(data: MuData) -> dict[str, str]:
    """The kind of every modality: "binary" for zeros and ones, "rna" for counts, "continuous" for other numbers.

    Counts in `layers["counts"]` make a modality "rna" whatever its `X` holds.
    """
    kinds = {}
    for name, part in data.mod.items():
        matrix = part.layers["counts"] if "counts" in part.layers else part.X
        kinds[name] = next(
            kind for support, kind in KINDS.items() if support is Support.REALS or holds(matrix, support)
        )
    return kinds
