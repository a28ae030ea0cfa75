"""Preflight: compiles the steps of a run for TPUs or GPUs that are not attached (a "pod"), and reports what each step
would cost there."""
