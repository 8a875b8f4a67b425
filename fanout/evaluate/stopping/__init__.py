"""Stopping of jobs as soon as their answer is known."""
