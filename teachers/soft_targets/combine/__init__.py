"""How several teachers become one target.

One module an answer kind.
"""
