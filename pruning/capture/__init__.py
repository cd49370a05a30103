"""One pass over the calibration text: scores of every estimator, gradient statistics, priors."""
