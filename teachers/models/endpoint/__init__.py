"""A teacher behind HTTP: what it is asked, how its answers are read, how fast it may be asked.

Knows nothing of stores, or of where answers are kept.
"""
