"""Rollouts on fixed seeds, success with confidence intervals, paired comparisons, videos and reports."""
