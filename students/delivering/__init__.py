"""The deliverable: a model folder with its card, and what it says of new rows.

Knows nothing of training.
"""
