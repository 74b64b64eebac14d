"""Keys, seals and reuse: which output stands for which inputs.

Knows nothing of how an output is made.
"""
