"""Learned rewards: a classifier of solved states, its training, and the environment that it judges."""
