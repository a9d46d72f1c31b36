"""Losses and advantages that are not in the core: one file each, one entry point each."""
