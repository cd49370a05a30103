"""Speed: how fast a model reads a prompt and writes tokens, and in how much memory."""
