"""`robolearn view`: a dataset in the browser."""
