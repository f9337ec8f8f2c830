"""Rewards for programs that train policies: one core, and a thin module for each trainer.

`rewarder` turns conversations into rows of named numbers, from a model on this machine or from a server, and remembers them.
`trl`, `openrlhf`, `verl`, `slime`, `areal`, `verifiers`, `nemo_rl` and `ms_swift` give what each of these programs calls; their
functions are importable by dotted path and take their settings from the environment.
"""
