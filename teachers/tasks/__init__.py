"""What is learnt of a row and what a teacher says of it: spaces, labels, answers.

Knows nothing of stores, rows on disk or losses.
"""
