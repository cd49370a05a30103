"""Records in, findings out: tables, JSON, plots, HTML. Never imports torch."""
