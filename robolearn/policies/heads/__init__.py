"""Action heads, one file each: from features to action chunks or densities over them."""
