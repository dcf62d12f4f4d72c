"""Verbs of learning from practice, and from what counts as success in it."""
