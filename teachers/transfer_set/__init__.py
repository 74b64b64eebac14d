"""transfer_set"""
