"""The trials of a search: proposals, schedulers, one trial under Ray Tune.

Knows nothing of stages other than what a trial reads.
"""
