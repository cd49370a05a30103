"""Model in, smaller model out. Knows nothing of evaluation, analysis or clusters."""
