"""Partition refinement over whole rows: the least automaton with the same answers and roles."""

from __future__ import annotations

import numpy as np


def minimise(following: np.ndarray, roles: np.ndarray, accept: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The equivalent automaton of fewest states, the dead state 0 and the start 1, others breadth first.

    `roles` are kept apart where the transition is live. Ends stay what they are, counted from a new `accept`,
    which is the number of states.
    """
    following, roles = _merged(following.astype(np.int64), roles, accept)
    order, seen = [0, 1], {0, 1}
    for q in order:
        for target in following[q].tolist():
            if target < len(following) and target not in seen:
                seen.add(target)
                order.append(target)
    new_id = np.zeros(len(following) + 256, np.int64)
    new_id[order] = np.arange(len(order))
    new_id[len(following) :] = len(order) + np.arange(256)
    return new_id[following[order]].astype(np.uint16), roles[order], len(order)


def _merged(following: np.ndarray, roles: np.ndarray, accept: int) -> tuple[np.ndarray, np.ndarray]:
    """States that no string tells apart, as one; the class of state 0 comes out as 0, that of state 1 as 1."""
    states = len(following)
    classes = np.zeros(accept + 256, np.int64)
    classes[accept:] = 1 + np.arange(256)
    block = np.zeros(states, np.int64)
    while True:
        classes[:states] = block
        # Dead is what has no live transition; ends keep their own classes, above every state's.
        rows = np.concatenate([classes[following] + np.where(following >= accept, states, 0), roles], axis=1)
        _, first, after = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        after = after.reshape(-1)
        if len(first) == len(np.unique(block)):
            break
        block = after
    # Number the classes: dead, start, then by their first member, so that the order is the learner's.
    order: list[int] = []
    for q in range(states):
        if block[q] not in order:
            order.append(int(block[q]))
    number = np.zeros(max(order) + 1, np.int64)
    number[order] = np.arange(len(order))
    firsts = [int(np.argmax(block == c)) for c in order]
    count = len(order)
    mapped = np.zeros(accept + 256, np.int64)
    mapped[:states] = number[block]
    mapped[accept:] = count + np.arange(256)
    return mapped[following[firsts]], roles[firsts]
