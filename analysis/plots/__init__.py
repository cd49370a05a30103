"""Plots of the findings: colour-blind safe, labelled with units, one file per question."""
