"""Gymnasium's environments as batches of ours, and our tasks as Gymnasium's."""
