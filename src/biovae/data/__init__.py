"""The data wing: the only room that reads the fields of AnnData, MuData and Zarr.

    files      read any supported file, after a look at it       gate       every value is looked at once
    locate     where each modality lives                         prepare    data in, schema and observations out
    split      train, validation, test                           select     features that vary

A new file format is a function from a path to an AnnData, and a line in the table of `files.py`.
"""

from biovae.data.covariates import column, numeric
from biovae.data.files import quiet, read, read_many, read_parts, stem
from biovae.data.flags import flags
from biovae.data.gate import Values, check_values
from biovae.data.join import join
from biovae.data.locate import locate
from biovae.data.prepare import Prepared, align, prepare, unlearned
from biovae.data.recognise import recognise
from biovae.data.select import select_features
from biovae.data.split import Role, split
from biovae.source import Source

__all__ = [
    "Prepared",
    "Role",
    "Source",
    "Values",
    "align",
    "check_values",
    "column",
    "flags",
    "join",
    "locate",
    "numeric",
    "prepare",
    "quiet",
    "read",
    "read_many",
    "read_parts",
    "recognise",
    "select_features",
    "split",
    "stem",
    "unlearned",
]
