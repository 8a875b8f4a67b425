"""`fanout batch`: run, resume and export batch jobs."""
