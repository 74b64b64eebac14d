"""users_code"""
