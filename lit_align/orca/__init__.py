"""Cross-modal transfer: other data into a language model's own space, and what comes out of it."""
