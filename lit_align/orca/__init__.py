"""Cross-modal work: embed any data as tokens of a language model, align the embedding with text, and refine the model."""
