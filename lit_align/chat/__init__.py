"""Conversations as a tokenizer's chat template writes them: turns, thoughts, tool calls, and how a turn ends."""
