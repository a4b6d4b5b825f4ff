"""The source: listing a user pool at the pace of its quota, and telling whether the list is
complete.
"""
