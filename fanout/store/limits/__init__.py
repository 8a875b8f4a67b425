"""The table of the limits that processes share, and what asks it for this process."""
