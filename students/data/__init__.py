"""Batches: rows, labels and soft targets side by side, augmented.

Knows nothing of losses.
"""
