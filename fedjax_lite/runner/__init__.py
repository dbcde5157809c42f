"""The impure part: run segments of rounds, write records and checkpoints, resume runs, plan and report them."""
