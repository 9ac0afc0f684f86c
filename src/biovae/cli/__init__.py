"""The command line: biovae demo | fit | sweep | compare | embed | sample | check | report | ask QUESTION."""

from biovae.cli.commands import app, main

__all__ = ["app", "main"]
