"""A recipe as a Ray job: packed, submitted, followed, stopped.

Knows nothing of what the job does.
"""
