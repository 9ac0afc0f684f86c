"""Directions: components, what dimensions mean, and whether each is one thing."""
