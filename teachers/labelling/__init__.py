"""Actors that label shards or answer live, and who spreads the work over them.

Knows nothing of stages or of who reads the stores.
"""
