"""The HTTP service: scans in by request, score rows out as strict JSON, from the workers of the local engine."""
