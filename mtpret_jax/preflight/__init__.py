"""Preflight: compiles the steps of a run for a pod that you do not have, and reports what each would take there."""
