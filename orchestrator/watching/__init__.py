"""How far a run is: what it says of itself, and who reads that.

Knows nothing of Ray; a status is read from files alone.
"""
