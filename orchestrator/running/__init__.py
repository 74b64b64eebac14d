"""A run and a search, one call each from Python.

Knows nothing of click or exit codes.
"""
