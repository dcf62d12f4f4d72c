"""Learning from recorded rewards alone, before any practice."""
