"""Pure functions on tensors and text; no models, no trainer."""
