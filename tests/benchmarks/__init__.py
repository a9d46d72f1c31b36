"""How fast, and how much memory, against the trainer that most people use."""
