"""The web stack of robolearn's pages: a small server, its guard, and the style they share."""
