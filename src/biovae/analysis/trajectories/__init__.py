"""An order of observations: pseudotime, fates, trends of features, and the direction that velocity gives."""
