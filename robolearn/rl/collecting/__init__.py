"""Collecting experience: macro-steps of environments, rollouts, the replay."""
