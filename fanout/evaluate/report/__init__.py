"""Reports: from the stored results and scores of a job to what they show, and how sure that is."""
