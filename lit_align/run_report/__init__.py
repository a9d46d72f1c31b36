"""The report of a run: one HTML file, made from what the run has written into its folder."""
