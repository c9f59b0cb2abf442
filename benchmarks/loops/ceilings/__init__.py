"""What the hardware would allow, by each library that could be the fastest: the best one counts.

All time the same work. `Products`: the matrix products of an epoch's steps and nothing else;
`LargeProduct`: one of two `size` x `size` matrices; `Copy`: one of `size` float32 numbers.
"""
