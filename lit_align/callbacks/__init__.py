"""Lightning callbacks: the report at the end of a run, predictions, likelihood displacement."""
