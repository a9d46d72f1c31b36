"""Language models as judges: in this process, or behind an OpenAI-compatible server."""
