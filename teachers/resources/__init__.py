"""Room on the cluster: reservations, pools of nodes to come, devices.

Knows nothing of what the room is for.
"""
