"""Readers of the same cases: agreement, the ceiling of their labels, and the model beside them."""
