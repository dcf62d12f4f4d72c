"""A person at a device beside the learner: their session in a process of its own, and what goes to and fro."""
