"""Findings about speed: measurements in, fits, paired differences and reports out. No torch."""
