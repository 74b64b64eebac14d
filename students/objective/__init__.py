"""Losses, and what each term hears from teachers and peers.

Plain functions of tensors: no files, no ranks.
"""
