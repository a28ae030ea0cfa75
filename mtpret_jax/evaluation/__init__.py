"""Predicts and scores splits: validation while training, test scores at the end, and probes of the trunk."""
