"""Machine code: automata of valid instructions, learnt offline, and what a stream of them may be."""
