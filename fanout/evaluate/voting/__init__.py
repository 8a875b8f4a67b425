"""Voting by people: ballots are drawn blind, from jobs and comparisons, and voted on."""
