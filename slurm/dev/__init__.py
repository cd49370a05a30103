"""A real Slurm on one machine, with fake GPUs, for trials and tests."""
