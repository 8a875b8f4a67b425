"""Importing what other evaluation programs have measured, as a job that has ended, so that its report needs no call."""
