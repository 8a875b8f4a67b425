"""Tokens of a prompt in each format that tells them. Some tell their ids, some only how many there are."""
