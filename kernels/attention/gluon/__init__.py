"""Attention forward for Hopper (sm_90) in Gluon: a producer warp and two warpgroups that take turns."""
