"""Scale GenAI Platform's dialect."""
