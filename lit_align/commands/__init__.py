"""What lit-align can do besides training: one file a command."""
