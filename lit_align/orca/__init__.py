"""Cross-modal work: embed any data as tokens of a language model, align them with text, refine the model."""
