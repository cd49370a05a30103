"""Repair after a cut, in closed form and on calibration activations only."""
