"""The judge: what a set of synthetic FA and MD volumes is worth, next to real volumes.

Each volume is measured by itself (`measurements`). Two groups of measured volumes are compared by
many measures in one permutation test (`comparison`). Five questions list their measures:
`fidelity`, `diversity`, `anatomy`, `privacy`, `utility`. An audit (`audit`) asks all five, and its
result (`results`) is shown as a page (`report`). `controls` and `false_alarms` test the judge
itself.
"""
