"""Foreign models as teachers: networks, folders, estimators, functions.

Knows nothing of stores or actors.
"""
