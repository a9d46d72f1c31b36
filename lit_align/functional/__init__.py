"""Pure maths on tensors and text; knows no model and no trainer."""
