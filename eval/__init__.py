"""A model in, measurements out; `secateur.eval.experiment` is one run from end to end."""
