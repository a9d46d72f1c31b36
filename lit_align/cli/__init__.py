"""The command lit-align: one file a command; training commands are LightningCLI."""
