"""The loop that fits a network: batches, schedules, checkpoints; it knows no files of data."""
