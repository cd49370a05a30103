"""What can be computed from the data sets; every finding has its evidence and its strength."""
