"""Engines that score cases: in this process, in processes of this machine, or on Ray."""
