"""HTTP to servers that are not trusted: deadlines, limits of size, retries; judges and samplers use it."""
