"""What begins next, and where: works, what is free on each node, a planner, virtual time.

Plain arithmetic: knows nothing of Ray, of threads, or of what is done.
"""
