"""Prepared rows, and the replayable views of them.

Knows nothing of where they came from.
"""
