"""Staging on an object store: what tasks leave for later tasks, for the pages and for an undo."""
