"""MLflow: runs, curves, the registry, and what is told later because a server was away.

Knows nothing of what the figures mean.
"""
