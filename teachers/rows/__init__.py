"""Columns in mapped Arrow files: gathered, shuffled, double-buffered.

Knows nothing of what a column means.
"""
