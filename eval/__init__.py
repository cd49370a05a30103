"""A model in, measurements out; `eval.experiment` is one run from end to end."""
