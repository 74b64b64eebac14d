"""The report: one document for machines, one page for people, a note for MLflow.

Reads finished stages and changes none.
"""
