"""The report of a run: a record in, one self-contained HTML page out.

`report.py` is the record, every part of it optional; `maps.py` and `sections.py` turn it into sections; `parts.py` and
`glossary.py` say what sections are made of; `page.py` makes HTML of them with `template.html` and `style.css`.
"""

from biovae.report.page import render, write
from biovae.report.report import Report

__all__ = ["Report", "render", "write"]
