"""What is not like the rest: single observations, two cells in one droplet, whole data sets."""
