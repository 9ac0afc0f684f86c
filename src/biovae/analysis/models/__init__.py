"""Which model, and how far to believe it: held-out comparison, imputation, seeds, sweeps."""
