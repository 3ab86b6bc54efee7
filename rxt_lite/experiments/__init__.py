"""Experiments: functions from models to rows (lists of dicts), always with their controls."""
