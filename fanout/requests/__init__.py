"""Requests as callers write them, in each published contract: validated, and taken over as `dispatch.plan.Request`."""
