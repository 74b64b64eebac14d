"""Foreign detectors as teachers: what they say of an image becomes boxes in 0 to 1 of it, the best first.

One module a kind of detector. Knows nothing of stores, nor of how boxes of several are combined.
"""
