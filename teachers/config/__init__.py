"""What a recipe can say of teachers, transfer sets and training.

Imports no torch.
"""
