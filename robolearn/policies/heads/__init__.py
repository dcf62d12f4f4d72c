"""Action heads: what a distribution over action chunks looks like, one file each."""
