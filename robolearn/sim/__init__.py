"""Batched physics: one interface over MuJoCo on CPU threads and MuJoCo Warp on a GPU."""
