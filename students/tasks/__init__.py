"""What is learnt and how it is judged.

Knows nothing of files, ranks or batches.
"""
