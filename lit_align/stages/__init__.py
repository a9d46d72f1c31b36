"""The stages: SFT, preference, reward model; one LightningModule each, on shared base classes."""
