"""Losses by task: plain functions of tensors, one value per row. Masks, teacher weights and reduction are the caller's.

`fn(student [rows, width], target, **keywords) -> [rows]`.
"""
