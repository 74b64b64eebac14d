"""The command `collegium`: click, exit codes, what a person reads on a terminal.

Knows nothing of how a stage is built.
"""
