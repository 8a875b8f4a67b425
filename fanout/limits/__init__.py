"""Rate limits: one limiter per provider account and limit group."""
