"""Augmentations that boxes can follow. Knows nothing of torch."""

FOLLOWED = ("flip", "zoom", "colour", "mosaic", "cutout", "noise")
