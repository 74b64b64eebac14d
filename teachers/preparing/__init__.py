"""From sources to segments: canonical rows, checked, split, in hash order.

Knows nothing of teachers.
"""
