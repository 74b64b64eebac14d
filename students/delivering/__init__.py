"""delivering"""
