"""The stages of alignment: one LightningModule each."""
