"""Pruned checkpoints for where secateur's own code is not: one file per target, and what each cannot carry."""
