"""Files that are there whole or not at all: local, in an object store, sealed.

Knows nothing of what is in them.
"""
