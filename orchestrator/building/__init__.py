"""How each stage is built, and the order of all.

Whether it must be built is decided in `stages`.
"""
