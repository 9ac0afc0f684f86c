"""What the modalities of a MuData hold, by their values."""

from mudata import MuData

from biovae.data.locate import holds
from biovae.schema import Support

KINDS = {Support.BINARY: "binary", Support.COUNTS: "rna", Support.REALS: "continuous"}  # narrowest first


def recognise(data: MuData, layer: str | None = None) -> dict[str, str]:
    """The kind of every modality: "binary" for zeros and ones, "rna" for counts, "continuous" for other numbers.

    Judged is the layer asked for where a modality has it, else `layers["counts"]`, else `X`.
    """
    kinds = {}
    for name, part in data.mod.items():
        found = next((key for key in (layer, "counts") if key in part.layers), None)
        matrix = part.X if found is None else part.layers[found]
        kinds[name] = next(
            kind for support, kind in KINDS.items() if support is Support.REALS or holds(matrix, support)
        )
    return kinds
