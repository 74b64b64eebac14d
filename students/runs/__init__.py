"""What one training is: its run, its session, its curves.

Says what is to be done and does none of it.
"""
