"""What a recipe can say of students and cohorts.

Imports no torch.
"""
