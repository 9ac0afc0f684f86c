"""Options that several commands share, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")]
Own = Annotated[list[Path] | None, typer.Argument(help="Files, if other than the observations of the run.")]
Answers = Annotated[Path | None, typer.Option("--out", help="Folder of the answer; RUN/QUESTION where not given.")]
Groups = Annotated[str | None, typer.Option(help="Column of obs; clusters of the latent space where not given.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Fits at a time; default: one a core, where that pays.")]
Data = Annotated[list[Path], typer.Argument(help=".h5ad .h5mu .zarr, 10x .h5 or folder, .loom, .csv; several: batches")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Transpose = Annotated[bool, typer.Option("--transpose", help="CSV rows are features.")]
Root = Annotated[
    list[str] | None,
    typer.Option(help="Where a trajectory starts: COLUMN=GROUP, or the name of an observation; may be repeated."),
]
Missing = Annotated[str, typer.Option(help="Features that the data lack: error or zero.")]
Unseen = Annotated[str, typer.Option(help="Unknown covariate levels: error or zero.")]
KindOfLikelihood = Annotated[str | None, typer.Option("--likelihood", help="negative_binomial, poisson, ...")]
Layer = Annotated[str | None, typer.Option(help="Layer that holds the counts.")]
Features = Annotated[str, typer.Option(help="How many features to model, or 'all'.")]
Covariates = Annotated[str, typer.Option(help="Columns of obs, separated by commas.")]
Latent = Annotated[int, typer.Option(min=1, help="Dimensions of z.")]
Hidden = Annotated[int, typer.Option(min=1, help="Width of the layers.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
KindOfModality = Annotated[
    list[str] | None,
    typer.Option("--modality", help="rna, continuous or binary; NAME=KIND, repeated, where a file holds several."),
]
AllowValues = Annotated[bool, typer.Option("--allow-values", help="Fit counts that are not whole numbers.")]
KindOfObjective = Annotated[str, typer.Option("--objective", help="elbo, iwae, total_correlation.")]
Passes = Annotated[str, typer.Option("--epochs", help="A number, or 'auto'.")]
BatchName = Annotated[
    str | None, typer.Option("--batch", help="Name of the covariate that tells several files apart; 'batch'.")
]
