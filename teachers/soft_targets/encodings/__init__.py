"""What a store keeps of a row.

One module a form.
"""
