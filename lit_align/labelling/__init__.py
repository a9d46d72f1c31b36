"""A web page where people compare answers, and what their votes are worth."""
