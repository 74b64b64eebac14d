"""Which process this is: identity, log lines, Prometheus, waits.

Knows nothing of what the process does.
"""
