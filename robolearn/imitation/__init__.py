"""Learning from demonstrations and from corrections."""
