"""Figures on validation and test rows, and whether a difference is shown.

Trains nothing.
"""
