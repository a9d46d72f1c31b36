"""A web page where people label responses, and the aggregation of their votes."""
