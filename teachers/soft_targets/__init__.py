"""The soft-target store: shards, commit records, encodings, combination.

Knows nothing of who labels or who learns.
"""
