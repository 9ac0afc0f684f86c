"""One run as a folder: fit, judge, write, report. What the command line does, as functions."""
