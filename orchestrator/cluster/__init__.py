"""The Ray cluster: started or joined, what it can hold, which nodes it has.

Knows nothing of recipes beyond the resources that they ask for.
"""
