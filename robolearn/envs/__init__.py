"""Vector environments: any Gymnasium environment or task of our own, and the experts that solve them."""
