"""The recipe: what a user writes, read and checked, each error with its place.

Imports no torch, Ray or MLflow.
"""
