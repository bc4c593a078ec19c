"""Workers: claim tasks, run their code, and send what happened."""
