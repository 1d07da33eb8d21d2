"""Networks that end in one logit."""
