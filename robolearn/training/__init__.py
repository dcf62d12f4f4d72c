"""One loop for every algorithm: checkpoints, bit-exact resume, metrics, seeding and progress."""
