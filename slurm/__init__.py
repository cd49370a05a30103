"""Many runs: expand a grid, drop what is done, run it here or on a cluster. Never imports torch."""
