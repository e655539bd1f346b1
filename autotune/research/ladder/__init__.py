"""Ladder: a published recipe of settings, measured rung by rung beside the published figures."""
