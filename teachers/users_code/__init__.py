"""Import strings: loading what they name, a digest of it, and errors in its own words.

Knows nothing of what the code is for.
"""
