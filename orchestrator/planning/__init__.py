"""What a run would do, and what is wrong with it, before any work.

Builds nothing and writes nothing.
"""
