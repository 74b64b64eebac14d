"""What leaves the house without weights and without inputs: answers by row key, their classes, a licence, a signature.

Knows nothing of students, recipes or Ray.
"""
