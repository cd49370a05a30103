"""Any folder of results in, a written report out in which every figure has a source."""
