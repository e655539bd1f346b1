"""Ladder: a recipe whose settings are added rung by rung; each rung is measured, beside published figures."""
