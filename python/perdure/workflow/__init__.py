"""What workflow code sees: the app and its decorators, durable calls, the memory."""
