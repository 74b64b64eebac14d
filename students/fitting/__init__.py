"""Trainings under a session: Ray Train, a process, a trial.

Knows nothing of losses or batches.
"""
