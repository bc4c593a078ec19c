"""The database: every SQL text, connections that repeat lost calls, encrypted values."""
