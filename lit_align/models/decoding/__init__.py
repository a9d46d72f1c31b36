"""Decoding: how prompts are read, keys and values kept, tokens chosen, and finished completions dropped."""
