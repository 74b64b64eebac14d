"""One training of one network, step by step, with exact resume.

Knows nothing of Ray or of other trainings.
"""
