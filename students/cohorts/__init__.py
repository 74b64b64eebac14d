"""Members that learn from each other while they train.

Knows nothing of Ray: ranks speak through a session.
"""
