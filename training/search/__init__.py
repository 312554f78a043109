"""Bi-level search: the inner loop fits an adapter, the outer one chooses what to adapt and how."""
